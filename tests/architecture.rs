//! How `src` is built: its folders are floors, and imports run down; files and functions stay short; `unsafe` stays
//! in `src/sys`. What still breaks a rule stands in `tests/architecture/violations.txt`, a list that may only shrink.
//! `BLESS=1 cargo test --test architecture` writes it anew if it has not grown, `BLESS=moved` also if it has.

#[path = "architecture/source.rs"]
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::{env, fs};

use source::{sources, Source};

/// From the ground up: a file may use its own floor and those before it.
const FLOORS: &[&str] = &[
    "sync",
    "panics",
    "error",
    "offload",
    "framing",
    "proxy",
    "sys",
    "tls",
    "config",
    "sources",
    "net",
    "selectors",
    "mailbox",
    "systemd",
    "privileges",
    "listen",
    "observe",
    "lifecycle",
    "admit",
    "connection",
    "handler",
    "hooks",
    "greeting",
    "finish",
    "accept",
    "strategy",
    "server",
    "preforking",
    "event_loop",
    "testing",
];

/// The same within `src/event_loop`, where a call of a method counts as an import of the floor of its `impl` block.
const LOOP_FLOORS: &[&str] = &[
    "primitives",
    "io",
    "clients",
    "state",
    "conns",
    "services",
    "turn",
    "receivers",
    "reactor",
    "engines",
    "test_loop",
    "mod",
];

/// They stand outside: the face, the pages of the guide, the scenarios under a scheduler.
const OUTSIDE: &[&str] = &["lib", "guide", "model"];

/// `unsafe` outside of `src/sys`: markers beside their types, one with a block for the model.
const UNSAFE_OUTSIDE_SYS: usize = 7;

/// Words that make a riddle of a sentence ("who waits has a permit"): none in comments, docs and the guide. Name the thing.
const RIDDLES: &[&str] = &["who", "whoever", "that one", "of which", "so many", "as by then", "tells of"];

const LONGEST_FILE: usize = 500;
/// Columns of a line in an example of the docs: what docs.rs shows without a scroll bar.
const WIDEST_EXAMPLE: usize = 84;
const LONGEST_FUNCTION: usize = 50;
/// The two walks that read top to bottom: folder, function, lines at most.
const WALKS: &[(&str, &str, usize)] = &[("accept", "next", 100), ("event_loop", "turn", 100)];

const VIOLATIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/architecture/violations.txt");

fn source() -> Vec<Source> {
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"))
}

#[test]
fn nothing_breaks_a_rule_but_what_is_listed() {
    let files = source();
    let rust = || files.iter().filter(|file| file.is_rust());
    let mut found = BTreeSet::new();
    for file in rust().filter(|file| !is_outside(file)) {
        imports(file, &mut found);
    }
    found.extend(method_calls(&rust().filter(|f| floor_in_loop(f).is_some() && !is_outside(f)).collect::<Vec<_>>()));
    for file in rust() {
        let lines = file.text.lines().count();
        if lines > LONGEST_FILE {
            found.insert(format!("{}: more than {LONGEST_FILE} lines", file.path));
        }
        if (file.path == "lib.rs" || file.path.ends_with("/mod.rs")) && !file.text.starts_with("//!") {
            found.insert(format!("{}: does not open with what it is", file.path));
        }
        for (name, lines) in file.functions() {
            let is_walk = |walk: &&(&str, &str, usize)| file.path.starts_with(walk.0) && name == walk.1;
            let most = WALKS.iter().find(is_walk).map_or(LONGEST_FUNCTION, |walk| walk.2);
            if lines > most {
                found.insert(format!("{}: fn {name} has more than {most} lines", file.path));
            }
        }
    }
    compare(&found);
}

#[test]
fn unsafe_code_stays_in_its_folder() {
    let files = source();
    let count = |file: &Source| file.words.iter().filter(|word| word.text == "unsafe").count();
    let outside: Vec<_> = files.iter().filter(|f| !f.path.starts_with("sys/") && count(f) > 0).collect();
    let places: Vec<_> = outside.iter().map(|file| (&file.path, count(file))).collect();
    assert_eq!(places.iter().map(|(_, n)| n).sum::<usize>(), UNSAFE_OUTSIDE_SYS, "{places:?}");
}

/// A panic of the program's logger is contained there, and nowhere else.
#[test]
fn log_lines_go_through_one_place() {
    const MACROS: [&str; 6] = ["log!(", "error!(", "warn!(", "info!(", "debug!(", "trace!("];
    let is_log = |line: &str| {
        let code = line.split("//").next().unwrap_or("");
        MACROS.iter().any(|name| code.contains(&format!("log::{name}")))
    };
    let logs = |file: &&Source| file.path != "observe/line.rs" && file.text.lines().any(is_log);
    let files = source();
    let around: Vec<_> = files.iter().filter(|file| file.is_rust()).filter(logs).map(|file| &file.path).collect();
    assert!(around.is_empty(), "log by observe::log_line: {around:?}");
}

#[test]
fn comments_ask_no_riddles() {
    let found: Vec<_> =
        source().iter().map(|file| (riddles(file), file.path.clone())).filter(|(n, _)| *n > 0).collect();
    assert!(found.is_empty(), "say it without {RIDDLES:?}: {found:?}");
}

#[test]
fn lines_of_examples_fit_the_page_of_the_docs() {
    let mut wide = Vec::new();
    for file in source() {
        let mut in_example = false;
        for (number, line) in file.text.lines().enumerate() {
            let trimmed = line.trim_start();
            let of_docs = trimmed.strip_prefix("///").or_else(|| trimmed.strip_prefix("//!"));
            let text = of_docs.map(|text| text.strip_prefix(' ').unwrap_or(text));
            let Some(text) = text.or((!file.is_rust()).then_some(line)) else {
                in_example = false;
                continue;
            };
            if text.starts_with("```") {
                in_example = !in_example;
            } else if in_example && !text.starts_with("# ") && text.chars().count() > WIDEST_EXAMPLE {
                wide.push(format!("{}:{}", file.path, number + 1));
            }
        }
    }
    assert!(wide.is_empty(), "more than {WIDEST_EXAMPLE} columns: {wide:?}");
}

fn riddles(file: &Source) -> usize {
    let is_name = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    let text = &file.comments;
    let whole =
        |at: usize, len: usize| !is_name(text[..at].chars().next_back()) && !is_name(text[at + len..].chars().next());
    RIDDLES.iter().map(|word| text.match_indices(word).filter(|(at, _)| whole(*at, word.len())).count()).sum()
}

/// Its folder, or its own name right below `src`.
fn room(file: &Source) -> &str {
    file.path.split('/').next().unwrap_or("").trim_end_matches(".rs")
}

/// Tests and stand-ins for the model are no part of a floor.
fn is_outside(file: &Source) -> bool {
    let name = file.path.rsplit('/').next().unwrap_or("");
    OUTSIDE.contains(&room(file)) || name == "tests.rs" || name == "model.rs"
}

fn floor_in_loop(file: &Source) -> Option<usize> {
    let inner = file.path.strip_prefix("event_loop/")?.split('/').next()?;
    LOOP_FLOORS.iter().position(|floor| *floor == inner.trim_end_matches(".rs"))
}

fn imports(file: &Source, found: &mut BTreeSet<String>) {
    let path = &file.path;
    let Some(own) = FLOORS.iter().position(|floor| *floor == room(file)) else {
        found.insert(format!("{path}: has no floor"));
        return;
    };
    let in_loop = floor_in_loop(file);
    if path.starts_with("event_loop/") && in_loop.is_none() {
        found.insert(format!("{path}: has no floor in the loop"));
    }
    for used in file.paths() {
        let (name, inner) = (used.first().map_or("", String::as_str), used.get(1).map_or("", String::as_str));
        match FLOORS.iter().position(|floor| *floor == name) {
            _ if OUTSIDE.contains(&name) => {}
            None => drop(found.insert(format!("{path}: crate::{name} names the face and no folder"))),
            Some(floor) if floor > own => drop(found.insert(format!("{path}: runs up to {name}"))),
            Some(_) => {}
        }
        let (Some(own), "event_loop") = (in_loop, name) else { continue };
        match LOOP_FLOORS.iter().position(|floor| *floor == inner) {
            None if inner.starts_with(char::is_uppercase) && LOOP_FLOORS[own] != "mod" => {
                found.insert(format!("{path}: event_loop::{inner} names the face and no folder"));
            }
            Some(floor) if floor > own => drop(found.insert(format!("{path}: runs up to event_loop::{inner}"))),
            _ => {}
        }
    }
}

/// Calls of methods that stand on a higher floor, of the types whose `impl` blocks stand on several (`State`).
fn method_calls(files: &[&Source]) -> Vec<String> {
    let mut homes: BTreeMap<(String, String), BTreeSet<usize>> = BTreeMap::new(); // type and method: floors
    for file in files {
        for (kind, body, end) in file.impls() {
            for method in file.methods(body, end) {
                homes.entry((kind.clone(), method)).or_default().extend(floor_in_loop(file));
            }
        }
    }
    let kinds: BTreeSet<&String> = homes.keys().map(|(kind, _)| kind).collect();
    let mut found = Vec::new();
    for file in files {
        let mut calls = Vec::new();
        for (kind, body, end) in file.impls() {
            calls.extend(file.calls("self", body, end).into_iter().map(|method| (kind.clone(), method)));
        }
        for kind in &kinds {
            let called = file.calls(&kind.to_lowercase(), 0, usize::MAX);
            calls.extend(called.into_iter().map(|method| ((*kind).clone(), method)));
        }
        for call in calls {
            let floor = homes.get(&call).filter(|floors| floors.len() == 1).and_then(BTreeSet::first);
            if floor.copied() > floor_in_loop(file) {
                let (kind, method) = call;
                let above = LOOP_FLOORS[floor.copied().unwrap_or(0)];
                found.push(format!("{}: {kind}::{method} runs up to event_loop::{above}", file.path));
            }
        }
    }
    found
}

/// Fails where the list has more or less than there is.
fn compare(found: &BTreeSet<String>) {
    let text = fs::read_to_string(VIOLATIONS).unwrap_or_default();
    let listed: BTreeSet<String> = text.lines().map(str::to_owned).collect();
    let blessing = env::var("BLESS").unwrap_or_default();
    if blessing == "moved" || blessing == "1" && found.len() <= listed.len() {
        let lines: String = found.iter().map(|line| format!("{line}\n")).collect();
        return fs::write(VIOLATIONS, lines).unwrap();
    }
    let new: Vec<_> = found.difference(&listed).map(|line| format!("  new:  {line}")).collect();
    let gone: Vec<_> = listed.difference(found).map(|line| format!("  gone: {line}")).collect();
    let (lines, n) = ([new.clone(), gone].concat().join("\n"), new.len());
    assert!(lines.is_empty(), "{n} new breaks of the rules; strike out what is gone from {VIOLATIONS}:\n{lines}");
}
