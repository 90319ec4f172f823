use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::{Flannel, LabError, Node, wait_for};

/// How long a daemon runs, or until it is ready.
const RUN: Duration = Duration::from_secs(2);
/// How long it may take to be ready under strace.
const READY: Duration = Duration::from_secs(60);

/// What a daemon sends to the kernel over netlink during a start, counted by strace.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NetlinkMessages {
    /// All messages.
    pub sent: u32,
    /// Those that ask for a change.
    pub changing: u32,
}

impl NetlinkMessages {
    /// Starts the daemon of `node`, with the other daemons of `flannel` running, and ends it after two seconds, or
    /// later if it is not ready yet.
    ///
    /// # Errors
    /// strace cannot be started, or the daemon is not ready within a minute.
    pub fn of_start(flannel: &Flannel, node: &Node) -> Result<Self, LabError> {
        drop(fs::remove_file(node.subnet_file()));
        let trace = node.folder().join("netlink.trace");
        let mut strace = Command::new("strace");
        strace.args(["-f", "-v", "-s", "65535", "-e", "trace=sendto", "-o"]).arg(&trace);
        // Its shell ends the daemon at the end of the input: killing strace would leave the daemon behind.
        strace.args(["sh", "-c", "\"$@\" & read -r _; kill $!; wait $!", "sh"]);
        strace.arg(flannel.binary()).args(flannel.arguments(node));
        strace.stdin(Stdio::piped()).stderr(Stdio::null());
        let begun = Instant::now();
        let mut strace = node.namespace().spawn(&mut strace)?;
        let is_done = || {
            let is_ready = || flannel.is_ready(node).is_ok_and(|ready| ready);
            (begun.elapsed() >= RUN && is_ready()).then_some(())
        };
        let ready = wait_for(READY, is_done);
        drop(strace.stdin.take());
        strace.wait().map_err(LabError::system("wait for strace"))?;
        ready.ok_or_else(|| LabError::unreadable("flanneld under strace", "it is not ready"))?;
        let what = LabError::system(format!("read {}", trace.display()));
        Ok(Self::count(&fs::read_to_string(&trace).map_err(what)?))
    }

    fn count(trace: &str) -> Self {
        const CHANGES: [&str; 5] = [
            "RTM_NEW",
            "RTM_DEL",
            "RTM_SET",
            "NFNL_SUBSYS_NFTABLES<<8|NFT_MSG_NEW",
            "NFNL_SUBSYS_NFTABLES<<8|NFT_MSG_DEL",
        ];
        let kinds = trace.match_indices("nlmsg_type=").map(|(at, key)| &trace[at + key.len()..]);
        let mut all = Self { sent: 0, changing: 0 };
        for kind in kinds {
            all.sent += 1;
            all.changing += u32::from(CHANGES.iter().any(|change| kind.starts_with(change)));
        }
        all
    }
}
