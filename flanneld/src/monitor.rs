//! Passes the kernel's notifications on to the reconciler.

use std::io;

use flannel_nft::Event;
use flannel_vxlan::Notification;
use tokio::sync::mpsc;
use tracing::{debug, warn};

use crate::error::Chain;

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

/// Says that others have changed the ruleset, until nobody listens.
///
/// Whether it was ours that they changed is found by looking: that costs less than telling.
pub async fn rules(monitor: flannel_nft::Monitor, to: mpsc::Sender<()>) {
    let passed: io::Result<()> = async {
        let mut stream = monitor.into_stream()?;
        loop {
            if let Event::Foreign(foreign) = stream.next().await? {
                debug!(pid = foreign.pid, process = foreign.process, "ruleset changed by others");
            }
            if let Err(mpsc::error::TrySendError::Closed(())) = to.try_send(()) {
                return Ok(());
            }
        }
    }
    .await;
    if let Err(error) = passed {
        warn!("no more notifications of rules: {}", Chain(&error));
        to.closed().await;
    }
}
