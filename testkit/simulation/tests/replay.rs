//! A failing seed can be studied only if it fails again in the same way.
#![allow(clippy::unwrap_used, reason = "a failed test panics")]

use std::process::Command;

#[test]
fn a_seed_has_the_same_trace_each_time() {
    let trace = |seed: &str| {
        let run = Command::new(env!("CARGO_BIN_EXE_simulate")).args(["seed", seed]).output().unwrap();
        String::from_utf8(run.stdout).unwrap()
    };
    let first = trace("64");
    assert!(first.contains("FAULT") && first.contains("SETTLED"), "{first}");
    assert_eq!(first, trace("64"));
    assert_ne!(first, trace("65"));
}
