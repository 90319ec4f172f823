//! Passes the kernel's notifications on to the reconciler.

use std::io;

use flannel_nft::{Event, TableId};
use flannel_vxlan::Notification;
use tokio::sync::{mpsc, watch};
use tracing::{debug, warn};

use flannel_lease::Chain;

/// Passes on what others do to links, addresses, routes and what is on our devices, until nobody listens.
///
/// If the socket breaks, which it never should, the slow verification goes on finding what changes.
pub async fn links(monitor: flannel_vxlan::Monitor, to: mpsc::Sender<Vec<Notification>>) {
    let passed: io::Result<()> = async {
        let mut stream = monitor.into_stream()?;
        loop {
            let notifications = stream.next().await?;
            if to.send(notifications).await.is_err() {
                return Ok(());
            }
        }
    }
    .await;
    if let Err(error) = passed {
        warn!("no more notifications of links and routes: {}", Chain(&error));
        // Changes are still found by the slow timer; dropping `to` would end the reconciler.
        to.closed().await;
    }
}

/// What others did to the nftables ruleset so far.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ForeignCommits {
    /// Commits that changed something in our tables.
    pub ours: u64,
    /// Commits that did not.
    pub others: u64,
    /// Times that notifications came faster than they were read.
    pub overflows: u64,
    /// Who changed something in our tables last: name and number of the process, as far as known.
    pub culprit: Option<(String, u32)>,
}

/// Counts what others do to the ruleset, until nobody listens.
///
/// Whether our tables still are as they should be is found by looking.
pub async fn rules(monitor: flannel_nft::Monitor, tables: Vec<TableId>, to: watch::Sender<ForeignCommits>) {
    let passed: io::Result<()> = async {
        let mut stream = monitor.into_stream()?;
        loop {
            let event = stream.next().await?;
            if to.is_closed() {
                return Ok(());
            }
            to.send_modify(|commits| match event {
                Event::Foreign(foreign) => {
                    debug!(pid = foreign.pid, process = foreign.process, "ruleset changed by others");
                    if foreign.changes.iter().any(|change| tables.contains(change.table())) {
                        commits.ours += 1;
                        commits.culprit = Some((foreign.process, foreign.pid));
                    } else {
                        commits.others += 1;
                    }
                }
                Event::Overflow => commits.overflows += 1,
            });
        }
    }
    .await;
    if let Err(error) = passed {
        warn!("no more notifications of rules: {}", Chain(&error));
        to.closed().await;
    }
}
