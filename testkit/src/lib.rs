//! Network-namespace lab, goldens and the demo; for tests only.
//!
//! - [`netns`] runs a closure in a fresh network namespace that vanishes with it.
//! - [`sh`] runs a command there; [`golden`] compares text with a checked-in file.
//!
//! Kernel tests need root. Elsewhere they skip, and say so; with `FLANNEL_NETNS=require` (which `make test` sets
//! for root, so CI too) a test that cannot run fails.

mod golden;
mod namespace;
mod shell;

pub use golden::golden;
pub use namespace::{in_netns, may_make_namespaces, netns};
pub use shell::{ShellError, sh, try_sh};

/// What the environment says about tests. The one place here that reads it.
pub(crate) fn setting(name: &str) -> Option<String> {
    #[expect(clippy::disallowed_methods, reason = "a switch for whoever runs the tests, not configuration")]
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
