//! Reads and writes subnet.env, and restores it when another process changes or removes it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flannel_cni::{InvalidValue, SubnetEnv};
use flannel_lease::{Backoff, MAX_REWRITE_PAUSE};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use crate::file;
use crate::run::file_watch::FileWatch;

/// Why subnet.env was not written or not understood.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubnetFileError {
    /// The previous file, if any, is as it was.
    #[error("cannot write subnet file {}: {}, or name another with --subnet-file and the CNI plugin's subnetFile", path.display(), file::write_advice(source))]
    Write {
        /// The file.
        path: PathBuf,
        /// What failed.
        #[source]
        source: io::Error,
    },
    /// It exists, and cannot be read.
    #[error("cannot read subnet file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What failed.
        #[source]
        source: io::Error,
    },
    /// It has a network or subnet that no daemon of this kind wrote.
    #[error("subnet file {}: {invalid}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// The value.
        invalid: InvalidValue,
    },
}

/// Reads what an earlier run left: the subnet to ask for again. An absent file is the same as an empty one.
///
/// # Errors
/// [`SubnetFileError::Read`], [`SubnetFileError::Corrupt`]. Going on without a previous subnet is safe.
pub fn read(path: &Path) -> Result<SubnetEnv, SubnetFileError> {
    let contents = match file::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(SubnetEnv::default()),
        contents => contents.map_err(|source| SubnetFileError::Read { path: path.to_owned(), source })?,
    };
    let (env, invalid) = SubnetEnv::parse(&contents);
    // An invalid MTU leaves the subnet valid.
    match invalid.into_iter().find(|invalid| invalid.key != SubnetEnv::MTU) {
        Some(invalid) => Err(SubnetFileError::Corrupt { path: path.to_owned(), invalid }),
        None => Ok(env),
    }
}

/// Writes the file whole or not at all: writes a temporary file in the same directory, syncs it, and renames it. Returns
/// whether that was necessary.
///
/// Lines of other programs stay. The directory is made if absent (mode 0755). A new file has mode 0644 whatever the umask;
/// an existing file keeps its mode.
///
/// # Errors
/// [`SubnetFileError::Write`].
pub fn write(path: &Path, env: &SubnetEnv) -> Result<bool, SubnetFileError> {
    // What cannot be read is replaced.
    let present = file::read(path).unwrap_or_default();
    if env.is_in(&present) {
        return Ok(false);
    }
    file::replace(path, &env.with_foreign_lines(&present), file::mode(path).unwrap_or(0o644))
        .map_err(|source| SubnetFileError::Write { path: path.to_owned(), source })?;
    Ok(true)
}

/// What came of one look at the file.
#[derive(Debug)]
pub struct SubnetFileCheck {
    /// When it began.
    pub began: std::time::Instant,
    /// The error, if the file does not have the desired content.
    pub result: Result<(), SubnetFileError>,
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
            let result = write(&path, &env);
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
