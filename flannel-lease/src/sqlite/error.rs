//! What went wrong with the lease file, and what to do about it.

use std::path::Path;

use rusqlite::ErrorCode;

use crate::{StoreError, StoreErrorKind};

/// A problem that SQLite does not know of.
pub(super) fn unusable(operation: &'static str, path: &Path, advice: &str) -> StoreError {
    StoreError {
        operation,
        object: format!("`{}`", path.display()),
        advice: advice.to_owned(),
        kind: StoreErrorKind::Unusable,
        source: None,
    }
}

/// Turns SQLite's error codes into advice.
pub(super) fn failed<'a>(
    operation: &'static str,
    path: &'a Path,
) -> impl Fn(rusqlite::Error) -> StoreError + Copy + use<'a> {
    move |error| {
        let (kind, advice) = advice(error.sqlite_error_code());
        StoreError { kind, source: Some(Box::new(error)), ..unusable(operation, path, advice) }
    }
}

fn advice(code: Option<ErrorCode>) -> (StoreErrorKind, &'static str) {
    use StoreErrorKind::{Unavailable, Unusable};
    match code {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed) => {
            (Unavailable, "another process keeps it locked; see which with `fuser`")
        }
        Some(ErrorCode::DiskFull) => {
            (Unavailable, "its file system is full; free some space. Nothing is lost")
        }
        Some(ErrorCode::SystemIoFailure) => (Unavailable, "its file system failed; see the kernel log"),
        Some(ErrorCode::ReadOnly) => {
            (Unusable, "it cannot be written; check its permissions and whether it is mounted read-only")
        }
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
            (Unusable, "it cannot be opened; check that this user may write it and its directory")
        }
        Some(ErrorCode::NotADatabase) => (Unusable, "it is not an SQLite database; name another path"),
        Some(ErrorCode::DatabaseCorrupt) => (Unusable, DAMAGED),
        _ => (Unavailable, "SQLite failed"),
    }
}

/// Advice for a file whose contents make no sense.
pub(super) const DAMAGED: &str =
    "it is damaged; restore a copy, or move it away, and every node registers again with its own subnet";
