//! Passes the kernel's notifications on to the reconciler.

use std::io;

use flannel_nft::{Event, TableId};
use flannel_vxlan::Notification;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tracing::{debug, info, warn};

use flannel_lease::{Backoff, Chain};

/// Passes on other processes' changes of links, addresses, routes and the objects on flannel's devices, until the receiver
/// is dropped.
pub async fn links(monitor: flannel_vxlan::Monitor, to: mpsc::Sender<Vec<Notification>>) {
    let mut stream = match monitor.into_stream() {
        Ok(stream) => stream,
        Err(error) => {
            warn!("{}", lost("links and routes", &error));
            // Dropping `to` would end the reconciler.
            return to.closed().await;
        }
    };
    let mut backoff = Backoff::default();
    loop {
        let notifications = match stream.next().await {
            Ok(notifications) => {
                backoff.reset();
                notifications
            }
            Err(error) => {
                reopen("links and routes", &error, &mut backoff, || stream.reopen()).await;
                vec![Notification::Overflow]
            }
        };
        if to.send(notifications).await.is_err() {
            return;
        }
    }
}

/// Tries to subscribe again until that works.
async fn reopen(
    what: &str,
    error: &io::Error,
    backoff: &mut Backoff,
    mut attempt: impl FnMut() -> io::Result<()>,
) {
    warn!("{}; subscribing again", lost(what, error));
    loop {
        sleep(backoff.next_delay()).await;
        match attempt() {
            Ok(()) => return info!("the kernel's notifications of {what} arrive again"),
            Err(error) => debug!("cannot subscribe to notifications of {what}: {}", Chain(&error)),
        }
    }
}

fn lost(what: &str, error: &io::Error) -> String {
    format!(
        "lost the kernel's notifications of {what}: {}; until they are back, flanneld finds changes at its regular checks",
        Chain(error)
    )
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

/// Counts other processes' changes of the ruleset, until the receiver is dropped.
///
/// Whether our tables still are as they should be is found by looking.
pub async fn rules(monitor: flannel_nft::Monitor, tables: Vec<TableId>, to: watch::Sender<ForeignCommits>) {
    let mut stream = match monitor.into_stream() {
        Ok(stream) => stream,
        Err(error) => {
            warn!("{}", lost("rules", &error));
            return to.closed().await;
        }
    };
    let mut backoff = Backoff::default();
    while !to.is_closed() {
        let event = match stream.next().await {
            Ok(event) => {
                backoff.reset();
                event
            }
            Err(error) => {
                reopen("rules", &error, &mut backoff, || stream.reopen()).await;
                Event::Overflow
            }
        };
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
