//! What does not compile says how to mend it. The texts are recorded for one compiler, and compared with no other:
//! `TRYBUILD=overwrite cargo test --test ui` records them anew.

use std::process::Command;

const RECORDED_WITH: &str = "rustc 1.95.";

#[test]
fn mistakes_are_explained() {
    let version = Command::new("rustc").arg("--version").output().map(|out| out.stdout).unwrap_or_default();
    if !version.starts_with(RECORDED_WITH.as_bytes()) {
        eprintln!("skipped: the messages are recorded with {RECORDED_WITH}");
        return;
    }
    trybuild::TestCases::new().compile_fail("cases/*.rs");
}
