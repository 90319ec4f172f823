use std::fs;
use std::process::{Command, Stdio};

use crate::{Flannel, LabError, Node};

/// What a daemon sends to the kernel over netlink during a start, counted by strace.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NetlinkMessages {
    /// All messages.
    pub sent: u32,
    /// Those that ask for a change.
    pub changing: u32,
}

impl NetlinkMessages {
    /// Starts the daemon of `node`, with the other daemons of `flannel` running, and ends it after two seconds.
    ///
    /// # Errors
    /// strace cannot be started, or there is no subnet.env after two seconds.
    pub fn of_start(flannel: &Flannel, node: &Node) -> Result<Self, LabError> {
        drop(fs::remove_file(node.subnet_file()));
        let trace = node.folder().join("netlink.trace");
        let mut strace = Command::new("strace");
        strace.args(["-f", "-v", "-s", "65535", "-e", "trace=sendto", "-o"]).arg(&trace);
        // The daemon ends by itself: killing strace would leave it behind.
        strace.args(["timeout", "2"]).arg(flannel.binary()).args(flannel.arguments(node));
        strace.stdin(Stdio::null()).stderr(Stdio::null());
        node.namespace().spawn(&mut strace)?.wait().map_err(LabError::system("wait for strace"))?;
        let what = || LabError::system(format!("read {}", trace.display()));
        fs::metadata(node.subnet_file()).map_err(LabError::system("find subnet.env after two seconds"))?;
        Ok(Self::count(&fs::read_to_string(&trace).map_err(what())?))
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
