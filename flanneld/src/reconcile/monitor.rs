//! Passes the kernel's notifications on to the reconciler.

use std::io;

use flannel_nft::{Event, TableId};
use flannel_vxlan::Notification;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tracing::{debug, info, warn};

use flannel_lease::file::limit_advice;
use flannel_lease::{Backoff, Chain};

/// A subscription to notifications of the kernel.
pub trait Subscription: Send {
    /// What it reports.
    type Report: Send;

    /// Waits for the next report.
    ///
    /// # Errors
    /// The subscription is lost.
    fn next(&mut self) -> impl Future<Output = io::Result<Self::Report>> + Send;

    /// Subscribes again.
    ///
    /// # Errors
    /// The kernel refuses it. The subscription is as before then.
    fn reopen(&mut self) -> io::Result<()>;
}

impl Subscription for flannel_vxlan::MonitorStream {
    type Report = Vec<Notification>;

    async fn next(&mut self) -> io::Result<Self::Report> {
        self.next().await
    }

    fn reopen(&mut self) -> io::Result<()> {
        self.reopen()
    }
}

impl Subscription for flannel_nft::MonitorStream {
    type Report = Event;

    async fn next(&mut self) -> io::Result<Self::Report> {
        self.next().await
    }

    fn reopen(&mut self) -> io::Result<()> {
        self.reopen()
    }
}

/// Passes on other processes' changes of links, addresses, routes and the objects on flannel's devices, until the receiver
/// is dropped.
pub async fn links(monitor: flannel_vxlan::Monitor, to: mpsc::Sender<Vec<Notification>>) {
    match monitor.into_stream() {
        Ok(stream) => follow_links(stream, to).await,
        Err(error) => {
            warn!("{}", missed("links and routes", "restart flanneld", &error));
            // Dropping `to` would end the reconciler.
            to.closed().await;
        }
    }
}

/// [`links`] with any subscription. One that is lost is opened again.
pub async fn follow_links(
    mut stream: impl Subscription<Report = Vec<Notification>>,
    to: mpsc::Sender<Vec<Notification>>,
) {
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
    info!(
        "lost notifications of {what} from the kernel; flanneld subscribes again and checks everything: {}",
        Chain(error)
    );
    let mut warned = false;
    loop {
        sleep(backoff.next_delay()).await;
        match attempt() {
            Ok(()) => return info!("the kernel's notifications of {what} arrive again"),
            Err(error) if !warned => warn!("{}", missed(what, "flanneld retries with backoff", &error)),
            Err(error) => debug!("cannot subscribe to notifications of {what}: {}", Chain(&error)),
        }
        warned = true;
    }
}

fn missed(what: &str, next: &str, error: &io::Error) -> String {
    let advice = limit_advice(error).map(|advice| format!("; {advice}")).unwrap_or_default();
    format!(
        "cannot subscribe to the kernel's notifications of {what}; traffic is not affected, but flanneld finds changes by other \
         processes only at its regular checks (--iptables-resync for rules, else 60 seconds); {next}{advice}: {}",
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
    /// The process that changed something in our tables last: its name and number, as far as known.
    pub culprit: Option<(String, u32)>,
}

/// Counts other processes' changes of the ruleset, until the receiver is dropped.
///
/// Whether our tables still are as they should be is found by looking.
pub async fn rules(monitor: flannel_nft::Monitor, tables: Vec<TableId>, to: watch::Sender<ForeignCommits>) {
    match monitor.into_stream() {
        Ok(stream) => follow_rules(stream, tables, to).await,
        Err(error) => {
            warn!("{}", missed("rules", "restart flanneld", &error));
            to.closed().await;
        }
    }
}

/// [`rules`] with any subscription. One that is lost is opened again.
pub async fn follow_rules(
    mut stream: impl Subscription<Report = Event>,
    tables: Vec<TableId>,
    to: watch::Sender<ForeignCommits>,
) {
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
