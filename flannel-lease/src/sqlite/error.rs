//! What went wrong with the lease file, and what to do about it.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::{AccessFlags, access};
use rusqlite::ErrorCode;

use crate::file::write_advice;
use crate::{StoreError, StoreErrorKind};

/// Files that SQLite has open at once at most: the database, its WAL, the index of the WAL, and a directory.
const MAX_OPEN_FILES: usize = 4;

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
        let code = error.sqlite_error_code();
        if let Some(cause) = system_error(code, path) {
            let kind = if is_temporary(&cause) { StoreErrorKind::Unavailable } else { advice(code).0 };
            let error = unusable(operation, path, write_advice(&cause));
            return StoreError { kind, source: Some(Box::new(cause)), ..error };
        }
        let (kind, advice) = advice(code);
        StoreError { kind, source: Some(Box::new(error)), ..unusable(operation, path, advice) }
    }
}

/// The error of the system call that failed, which SQLite reports only as the kind of its call.
fn system_error(code: Option<ErrorCode>, path: &Path) -> Option<io::Error> {
    use ErrorCode::{CannotOpen, PermissionDenied, ReadOnly, SystemIoFailure};
    matches!(code?, CannotOpen | PermissionDenied | ReadOnly | SystemIoFailure)
        .then(|| probe(path).err())
        .flatten()
}

/// Tries what SQLite does with a database at `path`, without opening that: closing it would release the locks that
/// this process has on it (fcntl(2)).
fn probe(path: &Path) -> io::Result<()> {
    for suffix in ["", "-wal", "-journal"] {
        let mut file = OsString::from(path);
        file.push(suffix);
        match access(Path::new(&file), AccessFlags::R_OK | AccessFlags::W_OK) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    let folder =
        path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let mut options = File::options();
    options.write(true).mode(0o600).custom_flags(OFlag::O_TMPFILE.bits());
    let files: io::Result<Vec<File>> = (0..MAX_OPEN_FILES).map(|_| options.open(folder)).collect();
    match files {
        // NFS, for one, has no files without names.
        Err(error) if error.raw_os_error().map(Errno::from_raw) == Some(Errno::EOPNOTSUPP) => Ok(()),
        files => files?.iter().try_for_each(|mut file| file.write_all(&[0; 4096])),
    }
}

fn is_temporary(error: &io::Error) -> bool {
    use Errno::{EDQUOT, EIO, EMFILE, ENFILE, ENOSPC};
    error
        .raw_os_error()
        .is_some_and(|errno| [EMFILE, ENFILE, ENOSPC, EDQUOT, EIO].contains(&Errno::from_raw(errno)))
}

fn advice(code: Option<ErrorCode>) -> (StoreErrorKind, &'static str) {
    use StoreErrorKind::{Unavailable, Unusable};
    match code {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed) => {
            (Unavailable, "another process keeps it locked; `fuser` shows which")
        }
        Some(ErrorCode::DiskFull) => {
            (Unavailable, "its file system is full, no lease is lost; free some space")
        }
        Some(ErrorCode::SystemIoFailure) => (Unavailable, "its file system failed; see the kernel's log"),
        Some(ErrorCode::ReadOnly) => {
            (Unusable, "it cannot be written; check its permissions and whether it is mounted read-only")
        }
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
            (Unusable, "it cannot be opened; check that this user may write it and its directory")
        }
        Some(ErrorCode::NotADatabase) => (Unusable, "it is not an SQLite database; name another path"),
        Some(ErrorCode::DatabaseCorrupt) => (Unusable, DAMAGED),
        _ => (Unavailable, "SQLite failed; if this lasts, check the file and its disk"),
    }
}

/// Advice for a file whose contents make no sense.
pub(super) const DAMAGED: &str =
    "it is damaged; restore a copy, or move it away, and every node registers again with its own subnet";
