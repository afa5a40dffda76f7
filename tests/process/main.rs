//! What a whole process has: its threads, descriptors, memory, limits, logger and signals. Each test that counts or sets
//! such a thing begins with `alone!()`, and so runs in a process of its own.

#[path = "../kit/mod.rs"]
mod kit;
#[path = "../script/mod.rs"]
mod script;
#[path = "../support/mod.rs"]
mod support;

/// Runs the rest of the test in a process of its own: this very executable, started for this one test.
macro_rules! alone {
    () => {
        fn here() {}
        if crate::has_run_alone(std::any::type_name_of_val(&here)) {
            return;
        }
    };
}

mod allocations;
mod blocking_groups;
mod blocking_work;
mod chat_churn;
mod client_leaks;
mod descriptor_limit;
mod idle_connections;
mod leaks;
mod logger_panics;
mod logging;
mod loop_leaks;
mod loops_leaks;
mod loops_logger;
mod signals;
mod sigpipe;
mod slow_crowds;
mod stalls;
mod system_roots;
mod thread_limit;
mod unheard;

use std::env;
use std::process::Command;

/// Names the test that a child process is started for.
const ALONE: &str = "SOCKETSERVER_TEST_ALONE";

/// Runs the test in a child process, and fails as it fails. False in that child, where the test itself is to run.
/// `function` is the path of a function inside the test.
#[track_caller]
fn has_run_alone(function: &str) -> bool {
    let path = function.strip_suffix("::here").expect("the macro's function");
    let (_, test) = path.split_once("::").expect("a path from the program's root");
    if env::var(ALONE).is_ok_and(|alone| alone == test) {
        return false;
    }
    let mut child = Command::new(env::current_exe().unwrap());
    child.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(ALONE, test);
    let output = child.output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("1 passed"), "{test}: {}\n{out}\n{err}", output.status);
    true
}
