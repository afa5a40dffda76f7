//! A Rust file as words: enough of the language to see imports, calls and the ends of functions.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A name, `::`, or one sign; with its line. Comments, strings, characters and lifetimes are none.
pub struct Word {
    pub text: String,
    pub line: usize,
}

/// One file, by its path below `src`.
pub struct Source {
    pub path: String,
    pub text: String,
    pub words: Vec<Word>,
    /// All comments and docs, as one line.
    pub comments: String,
    /// The modules within the file: the words of their bodies.
    modules: Vec<(String, Range<usize>)>,
}

impl Source {
    fn read(root: &Path, file: &Path) -> Self {
        let text = fs::read_to_string(file).unwrap();
        let (words, comments) = match file.extension().is_some_and(|end| end == "rs") {
            true => words_and_comments(&text),
            false => (Vec::new(), text.clone()),
        };
        let comments = comments.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
        let path = file.strip_prefix(root).unwrap().to_string_lossy().into_owned();
        let mut this = Self { path, text, words, comments, modules: Vec::new() };
        let opens = |at: &usize| this.word(*at) == "mod" && this.word(at + 2) == "{";
        let named = |at: usize| (this.word(at + 1).to_owned(), at + 2..this.close(at + 2));
        this.modules = (0..this.words.len()).filter(opens).map(named).collect();
        this
    }

    pub fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// The path of the module at this word, from the crate's root: of `a/b.rs` and `a/b/mod.rs` it is `a::b`.
    fn module(&self, at: usize) -> Vec<String> {
        let path = self.path.trim_end_matches(".rs").trim_end_matches("/mod");
        let file = path.split('/').filter(|name| *name != "lib").map(str::to_owned);
        let inner = self.modules.iter().filter(|(_, body)| body.contains(&at)).map(|(name, _)| name.clone());
        file.chain(inner).collect()
    }

    /// The words outside of tests.
    fn code(&self) -> impl Iterator<Item = usize> + '_ {
        let in_tests = |at: &usize| self.modules.iter().any(|(name, body)| name == "tests" && body.contains(at));
        (0..self.words.len()).filter(move |at| !in_tests(at))
    }

    fn word(&self, at: usize) -> &str {
        self.words.get(at).map_or("", |word| word.text.as_str())
    }

    /// Whether these words stand here.
    pub fn says(&self, at: usize, words: &[&str]) -> bool {
        words.iter().enumerate().all(|(n, word)| self.word(at + n) == *word)
    }

    /// The sign that closes the bracket at `open`.
    pub fn close(&self, open: usize) -> usize {
        let mut depth = 0;
        for at in open..self.words.len() {
            match self.word(at) {
                "(" | "[" | "{" => depth += 1,
                ")" | "]" | "}" => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return at;
            }
        }
        self.words.len()
    }

    /// What the code names by `crate::`, `self::` and `super::`, from the crate's root on.
    pub fn paths(&self) -> Vec<Vec<String>> {
        let mut found = Vec::new();
        let begins = |at: &usize| self.word(at + 1) == "::" && (*at == 0 || self.word(at - 1) != "::");
        for at in self.code().filter(begins) {
            let (mut at, mut base) = (at, self.module(at));
            match self.word(at) {
                "crate" => base.clear(),
                "self" => {}
                "super" => {
                    base.pop();
                }
                _ => continue,
            }
            while self.says(at + 1, &["::", "super"]) {
                base.pop();
                at += 2;
            }
            self.open(at + 2, &base, &mut found);
        }
        found
    }

    /// The paths that begin here, `a::{b, c::d}` as two; and the place after them.
    fn open(&self, mut at: usize, base: &[String], found: &mut Vec<Vec<String>>) -> usize {
        if self.word(at) == "{" {
            while !["}", ""].contains(&self.word(at)) {
                at = self.open(at + 1, base, found);
            }
            return at + 1;
        }
        let longer: Vec<String> = base.iter().cloned().chain([self.word(at).to_owned()]).collect();
        if self.word(at + 1) == "::" {
            return self.open(at + 2, &longer, found);
        }
        found.push(longer);
        let mut end = at + 1;
        while self.says(end, &["as"]) {
            end += 2;
        }
        end
    }

    /// Each function that has a body: its name, and its lines from `fn` to the last brace.
    pub fn functions(&self) -> Vec<(String, usize)> {
        let mut found = Vec::new();
        for at in (0..self.words.len()).filter(|at| self.word(*at) == "fn" && self.word(at + 1) != "(") {
            let mut end = at;
            while !["{", ";", ""].contains(&self.word(end)) {
                end = if ["(", "["].contains(&self.word(end)) { self.close(end) } else { end } + 1;
            }
            if self.word(end) == "{" {
                let last = self.words.get(self.close(end)).map_or(0, |word| word.line);
                found.push((self.word(at + 1).to_owned(), last - self.words[at].line + 1));
            }
        }
        found
    }

    /// The `impl` blocks of types, those of traits left out: the type's name, and where its body begins and ends.
    pub fn impls(&self) -> Vec<(String, usize, usize)> {
        let mut found = Vec::new();
        for at in self.code().filter(|at| self.word(*at) == "impl") {
            let name = self.after_generics(at + 1);
            let body = self.after_generics(name + 1);
            if self.word(body) == "{" {
                found.push((self.word(name).to_owned(), body, self.close(body)));
            }
        }
        found
    }

    fn after_generics(&self, mut at: usize) -> usize {
        let mut depth = 0;
        while self.word(at) == "<" || depth > 0 && at < self.words.len() {
            depth += usize::from(self.word(at) == "<");
            depth -= usize::from(self.word(at) == ">");
            at += 1;
        }
        at
    }

    /// The methods called by `value.method(` within these words.
    pub fn calls(&self, value: &str, from: usize, to: usize) -> Vec<String> {
        let is_call = |at: &usize| self.says(*at, &[value, "."]) && self.word(at + 3) == "(";
        let within = self.code().filter(|at| (from..to).contains(at));
        within.filter(is_call).map(|at| self.word(at + 2).to_owned()).collect()
    }

    /// The names of the functions right within a body.
    pub fn methods(&self, body: usize, end: usize) -> Vec<String> {
        let (mut at, mut found) = (body + 1, Vec::new());
        while at < end {
            if self.word(at) == "fn" {
                found.push(self.word(at + 1).to_owned());
            }
            at = if self.word(at) == "{" { self.close(at) } else { at } + 1;
        }
        found
    }
}

/// All files of a folder and those below, sorted.
pub fn sources(root: &Path) -> Vec<Source> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|end| end == "rs" || end == "md") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(root, &mut found);
    found.sort();
    found.iter().map(|file| Source::read(root, file)).collect()
}

fn words_and_comments(text: &str) -> (Vec<Word>, String) {
    let signs: Vec<char> = text.chars().collect();
    let sign = |at: usize| signs.get(at).copied().unwrap_or('\n');
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let (mut words, mut comments, mut at, mut line) = (Vec::new(), String::new(), 0, 1);
    while at < signs.len() {
        let begin = at;
        match (sign(at), sign(at + 1)) {
            ('/', '/') => {
                while at < signs.len() && sign(at) != '\n' {
                    at += 1;
                }
                let inner = signs[begin..at].iter().collect::<String>();
                comments.extend([inner.trim_start_matches(['/', '!']), " "]);
            }
            ('/', '*') => {
                while at < signs.len() && (sign(at), sign(at + 1)) != ('*', '/') {
                    at += 1;
                }
                comments.extend(&signs[begin..at]);
                at += 2;
            }
            ('r', '"' | '#') if raw_string(&signs, at).is_some() => at = raw_string(&signs, at).unwrap(),
            ('"', _) => at = after_quote(&signs, at, '"'),
            ('\'', c) if c == '\\' || sign(at + 2) == '\'' => at = after_quote(&signs, at, '\''),
            (':', ':') => at += 2,
            (c, _) if is_name(c) => {
                while is_name(sign(at)) {
                    at += 1;
                }
                if ["b", "c", "br", "cr"].contains(&&*signs[begin..at].iter().collect::<String>()) {
                    at = if sign(at) == '"' || sign(at) == '\'' { after_quote(&signs, at, sign(at)) } else { at };
                }
            }
            _ => at += 1,
        }
        let text: String = signs[begin..at.min(signs.len())].iter().collect();
        if !text.starts_with(['/', '"', '\'']) && !text.contains('"') && !text.trim().is_empty() {
            words.push(Word { text: text.clone(), line });
        }
        line += text.matches('\n').count();
    }
    (words, comments)
}

/// Where the string or character ends that begins here.
fn after_quote(signs: &[char], mut at: usize, quote: char) -> usize {
    at += 1;
    while at < signs.len() && signs[at] != quote {
        at += if signs[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

/// Where `r"…"` or `r#"…"#` ends, if one begins here.
fn raw_string(signs: &[char], at: usize) -> Option<usize> {
    let hashes = signs[at + 1..].iter().take_while(|c| **c == '#').count();
    let open = at + 1 + hashes;
    let end =
        |at: &usize| signs[*at] == '"' && signs[at + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes;
    (signs.get(open) == Some(&'"')).then(|| (open + 1..signs.len()).find(end).map(|at| at + 1 + hashes)).flatten()
}
