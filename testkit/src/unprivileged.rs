//! Processes that may not change the network namespace that they run in.

use crate::sh;

/// Runs the ignored test `test` of this program as two processes that lack `CAP_NET_ADMIN` for the caller's network
/// namespace, and returns what each printed: one process without capabilities, and one that has them only in a user
/// namespace of its own, as in a rootless container with the host's network.
///
/// # Panics
/// The test fails.
pub fn without_net_admin(test: &str) -> [String; 2] {
    ["setpriv --bounding-set=-all --inh-caps=-all", "unshare --user --map-root-user"]
        .map(|command| rerun(command, test))
}

/// Runs the ignored test `test` of this program by a command that starts another, and returns what the test printed.
///
/// # Panics
/// The test fails.
pub fn rerun(command: &str, test: &str) -> String {
    #[expect(clippy::unwrap_used, reason = "a test that cannot run itself has failed")]
    let program = std::env::current_exe().unwrap();
    let text = sh(&format!("exec {command} '{}' --exact {test} --ignored --nocapture", program.display()));
    assert!(text.contains("1 passed"), "{text}");
    text
}
