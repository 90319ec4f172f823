use std::io::{self, Write};
use std::panic::resume_unwind;
use std::thread;

use nix::sched::{CloneFlags, unshare};

use crate::{setting, try_sh};

/// Runs `body` on a thread of its own in a fresh network namespace with `lo` up.
///
/// The namespace, with every rule, link and route in it, vanishes when `body` returns and the last process that it
/// started has ended. Threads and processes that `body` starts are in the same namespace.
///
/// Where namespaces cannot be made (not root), the test is skipped with a line on stderr, or fails if the
/// environment has `FLANNEL_NETNS=require`.
///
/// # Kernel
/// `unshare --net`. Needs `CAP_SYS_ADMIN`.
pub fn netns(body: impl FnOnce() + Send) {
    if may_make_namespaces()
        && let Err(error) = in_netns(body)
    {
        unusable(&error);
    }
}

/// Runs `body` as [`netns`] does and returns what it returns; a panic in it goes on in the caller.
///
/// # Errors
/// The kernel refuses the namespace (`EPERM`: not root), or `lo` cannot be raised. `body` has not run.
pub fn in_netns<T: Send>(body: impl FnOnce() -> T + Send) -> io::Result<T> {
    // The same name, so that a panic is reported under the test it belongs to.
    let name = thread::current().name().unwrap_or("netns").to_owned();
    thread::scope(|scope| {
        let inside = thread::Builder::new().name(name).spawn_scoped(scope, || {
            unshare(CloneFlags::CLONE_NEWNET)?;
            try_sh("ip link set lo up").map_err(io::Error::other)?;
            Ok(body())
        })?;
        inside.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

/// Whether this process may make network namespaces; if not, says that the calling test is skipped.
///
/// For tests that need a whole lab and return early without one.
///
/// # Panics
/// It may not, and the environment has `FLANNEL_NETNS=require`.
pub fn may_make_namespaces() -> bool {
    let allowed = thread::scope(|scope| scope.spawn(|| unshare(CloneFlags::CLONE_NEWNET)).join());
    match allowed.unwrap_or_else(|panic| resume_unwind(panic)) {
        Ok(()) => true,
        Err(errno) => {
            unusable(&errno.into());
            false
        }
    }
}

#[expect(clippy::panic, reason = "a test that must not be skipped has to fail")]
fn unusable(error: &io::Error) {
    let test = thread::current().name().unwrap_or("a test").to_owned();
    if setting("FLANNEL_NETNS").as_deref() == Some("require") {
        panic!("FLANNEL_NETNS=require, but {test} has no network namespace: {error}");
    }
    // Not eprintln!: the test harness would swallow it for a test that passes.
    let line = format!("SKIPPED {test}: no network namespace: {error}; run `make test` as root\n");
    // Nobody is left to tell if stderr is closed.
    drop(io::stderr().write_all(line.as_bytes()));
}
