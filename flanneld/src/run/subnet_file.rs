//! Writes subnet.env, and restores it when another process changes or removes it.

use std::path::PathBuf;
use std::time::Duration;

use flannel_lease::{Backoff, MAX_REWRITE_PAUSE};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use crate::desired::subnet_env::{SubnetEnv, SubnetEnvError};
use crate::file;
use crate::run::file_watch::FileWatch;

/// What came of one look at the file.
#[derive(Debug)]
pub struct SubnetFileCheck {
    /// When it began.
    pub began: std::time::Instant,
    /// The error, if the file does not have the desired content.
    pub result: Result<(), SubnetEnvError>,
    /// If the file had to be restored, when it is looked at again at the earliest.
    pub restored: Option<Instant>,
}

/// Writes what is `wanted` to `path`, and again whenever another process has removed or changed it, until `wanted` is
/// closed. Reports each look to `checks`. File calls block the calling thread.
pub async fn keep(
    path: PathBuf,
    mut wanted: watch::Receiver<Option<SubnetEnv>>,
    checks: mpsc::Sender<SubnetFileCheck>,
) {
    file::remove_leftovers(&path);
    let mut changes = FileWatch::new(&path);
    let (mut retries, mut restorations) = (Backoff::default(), Backoff::up_to(MAX_REWRITE_PAUSE));
    let mut restored_at: Option<Instant> = None;
    // What the file held after the last look.
    let mut held = None;
    loop {
        let env = wanted.borrow_and_update().clone();
        let (mut pause, mut failed) = (Duration::ZERO, false);
        if let Some(env) = env {
            let began = std::time::Instant::now();
            let result = env.write(&path);
            let written = matches!(result, Ok(true));
            let restored = written && held.as_ref() == Some(&env);
            if restored {
                if restored_at.is_none_or(|at| at.elapsed() > MAX_REWRITE_PAUSE) {
                    restorations.reset();
                }
                restored_at = Some(Instant::now());
                pause = restorations.next_delay();
                warn!(
                    "wrote subnet file {} again: another process removed or changed it, and new pods need it. Nothing is \
                     needed unless this repeats",
                    path.display()
                );
            } else if written {
                info!("Wrote subnet file to {}", path.display());
            }
            failed = result.is_err();
            if failed {
                pause = retries.next_delay();
            } else {
                retries.reset();
                held = Some(env);
            }
            let restored = restored.then(|| Instant::now() + pause);
            // While the reconciler is busy with something else, a later look will do.
            let _busy = checks.try_send(SubnetFileCheck { began, result: result.map(drop), restored });
        }
        let again = async {
            sleep(pause).await;
            if !failed {
                changes.changed().await;
            }
        };
        tokio::select! {
            changed = wanted.changed() => if changed.is_err() { return },
            () = again => {}
        }
    }
}
