use std::fs::File;
use std::io::{self, Write};
use std::net::{IpAddr, TcpStream};
use std::panic::resume_unwind;
use std::process::{Child, Command};
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::SigSet;

use crate::wait::slowed;
use crate::{LabError, setting, try_sh, wait_for};

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

/// A network namespace with a name, as `ip netns` lists it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    pub(crate) fn named(name: String) -> Self {
        Self { name }
    }

    /// Makes it, with `lo` up.
    pub(crate) fn add(&self) -> Result<(), LabError> {
        try_sh(&format!("ip netns add {}", self.name))?;
        self.sh("ip link set lo up")?;
        Ok(())
    }

    /// Its name in `ip netns list`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `body` on a thread inside the namespace. Sockets, threads and processes that it makes belong there.
    ///
    /// # Errors
    /// The namespace is gone. `body` has not run.
    ///
    /// # Kernel
    /// `ip netns exec NAME`, without its new mount of /sys.
    pub fn enter<T: Send>(&self, body: impl FnOnce() -> T + Send) -> Result<T, LabError> {
        let name = thread::current().name().unwrap_or(&self.name).to_owned();
        thread::scope(|scope| {
            let inside = thread::Builder::new().name(name).spawn_scoped(scope, || {
                let file = File::open(format!("/run/netns/{}", self.name))?;
                setns(file, CloneFlags::CLONE_NEWNET)?;
                Ok(body())
            })?;
            inside.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
        .map_err(LabError::system(format!("enter network namespace {}", self.name)))
    }

    /// Runs a shell command in the namespace and returns what it printed on stdout.
    ///
    /// # Errors
    /// It ends with another status than 0.
    pub fn sh(&self, command: &str) -> Result<String, LabError> {
        Ok(self.enter(|| try_sh(command))??)
    }

    /// Waits until each IPv6 address that is valid has its entry in the table `local`. The kernel adds it from a work
    /// queue, which on a busy machine takes a moment, also to addresses that it does not check for duplicates.
    ///
    /// # Errors
    /// An entry is missing for 10 seconds.
    ///
    /// # Kernel
    /// `addrconf_dad_work` in net/ipv6/addrconf.c.
    pub fn wait_for_local_routes(&self) -> Result<(), LabError> {
        let are_there = "ip -6 -oneline addr show scope global -tentative | while read -r _ _ _ address _; do
            ip -6 route show table local | grep -q \"^local ${address%/*} \"; done";
        wait_for(Duration::from_secs(10), || self.sh(are_there).ok()).map(drop).ok_or_else(|| {
            LabError::unreadable(format!("table local of {}", self.name), "an IPv6 address has no route")
        })
    }

    /// Starts a process in the namespace.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn spawn(&self, command: &mut Command) -> Result<Child, LabError> {
        let program = command.get_program().to_string_lossy().into_owned();
        let spawn = || {
            // A child inherits the mask of the thread that starts it, and has to hear SIGTERM though we block it.
            SigSet::empty().thread_set_mask()?;
            command.spawn()
        };
        self.enter(spawn)?.map_err(LabError::system(format!("start {program} in {}", self.name)))
    }

    /// Sends one echo request and waits a second for the reply.
    ///
    /// # Errors
    /// No reply; the text is what `ping` printed.
    pub fn ping(&self, address: IpAddr) -> Result<(), LabError> {
        self.sh(&format!("ping -n -c 1 -W 1 {address}")).map(drop)
    }

    /// Waits until the host at `address` answers; `false` if it has not within `limit`.
    ///
    /// Every millisecond it knocks at a TCP port where nobody listens: the refusal can only come from that host. A
    /// ping would need a process for each try.
    ///
    /// # Errors
    /// The namespace is gone.
    pub fn reaches(&self, address: IpAddr, limit: Duration) -> Result<bool, LabError> {
        const NOBODY: u16 = 9;
        self.enter(|| {
            wait_for(limit, || {
                match TcpStream::connect_timeout(&(address, NOBODY).into(), slowed(Duration::from_millis(5)))
                {
                    Ok(_) => Some(()),
                    Err(error) => (error.kind() == io::ErrorKind::ConnectionRefused).then_some(()),
                }
            })
            .is_some()
        })
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
