//! Files that others write too: configuration is read whole, but never without end; why a file cannot be written.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;

/// Bytes of the largest file of configuration that is read.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// Reads a configuration file. It reads at most 16 MiB, so that a wrong path cannot exhaust memory, and only a regular
/// file, because reading a pipe or a device may never end.
///
/// # Errors
/// As [`std::fs::read`]; [`io::ErrorKind::FileTooLarge`]; [`io::ErrorKind::InvalidInput`] if it is not a regular file.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    read_up_to(MAX_FILE_BYTES, path)
}

/// As [`read`], with a limit of `largest` bytes.
///
/// # Errors
/// As [`read`].
pub fn read_up_to(largest: u64, path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    // open(2) of a pipe without O_NONBLOCK waits for a writer.
    let file = File::options().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    let kind = file.metadata()?.file_type();
    if !kind.is_file() && !kind.is_dir() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut file = file.take(largest.saturating_add(1));
    file.read_to_end(&mut content)?;
    if file.limit() == 0 {
        let problem = format!("larger than {} MiB", largest >> 20);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, problem));
    }
    Ok(content)
}

/// As [`read`], decoded as UTF-8.
///
/// # Errors
/// As [`read`]; [`io::ErrorKind::InvalidData`] if the file is not UTF-8.
pub fn read_text(path: &Path) -> io::Result<String> {
    String::from_utf8(read(path)?)
        .map_err(|_where| io::Error::new(io::ErrorKind::InvalidData, "not UTF-8 text"))
}

/// What the operator has to do if no file descriptor is left.
const RAISE_LIMIT: &str = "raise the limit of open files (LimitNOFILE=, ulimit -n, fs.file-max)";

/// Whether no file descriptor is left.
fn is_out_of_files(error: &io::Error) -> bool {
    matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::EMFILE | Errno::ENFILE))
}

/// What the operator has to do if a call fails because no file descriptor is left; `None` if it fails for another reason.
#[must_use]
pub fn limit_advice(error: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    let mut causes = crate::error::with_causes(error);
    causes.any(|cause| cause.downcast_ref().is_some_and(is_out_of_files)).then_some(RAISE_LIMIT)
}

/// What the operator has to do if a file cannot be written.
#[must_use]
pub fn write_advice(error: &io::Error) -> &'static str {
    match error.raw_os_error().map(Errno::from_raw) {
        _ if is_out_of_files(error) => RAISE_LIMIT,
        Some(Errno::ENOSPC | Errno::EDQUOT) => "free space or inodes on its file system, or raise the quota",
        Some(Errno::EROFS) => "its file system is read-only: mount it writable",
        Some(Errno::ENAMETOOLONG) => "shorten its path",
        Some(Errno::EIO) => "its disk fails: see the kernel's log",
        Some(Errno::EISDIR) => "remove the directory of that name",
        Some(Errno::EACCES | Errno::EPERM) => "let this user write it and its directory",
        _ => "check its path and its file system",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_names_permissions_only_if_one_is_missing() {
        for errno in [Errno::EACCES, Errno::EPERM] {
            assert!(write_advice(&errno.into()).contains("this user"), "{errno}");
        }
        for (errno, advice) in [
            (Errno::EMFILE, "ulimit -n"),
            (Errno::ENFILE, "fs.file-max"),
            (Errno::ENOSPC, "free space or inodes"),
            (Errno::EDQUOT, "quota"),
            (Errno::EROFS, "read-only"),
            (Errno::ENAMETOOLONG, "shorten"),
            (Errno::EIO, "disk fails"),
            (Errno::ELOOP, "check its path"),
        ] {
            let text = write_advice(&errno.into());
            assert!(text.contains(advice) && !text.contains("this user"), "{errno}: {text}");
        }
    }

    #[test]
    fn a_missing_file_descriptor_is_found_behind_other_errors() {
        let inner = || io::Error::from(Errno::EMFILE);
        for error in [inner(), io::Error::other(inner()), io::Error::other(io::Error::other(inner()))] {
            assert_eq!(limit_advice(&error), Some(RAISE_LIMIT), "{error:?}");
        }
        assert_eq!(limit_advice(&io::Error::from(Errno::ECONNREFUSED)), None);
    }

    #[test]
    fn what_may_never_end_is_refused_instead_of_read() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR).unwrap();
        for path in [Path::new("/dev/zero"), &pipe] {
            assert_eq!(read(path).unwrap_err().to_string(), "not a regular file", "{}", path.display());
        }
        assert_eq!(read(folder.path()).unwrap_err().kind(), io::ErrorKind::IsADirectory);
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(MAX_FILE_BYTES).unwrap();
        assert_eq!(read(file.path()).unwrap().len(), 16 << 20);
        file.as_file().set_len(MAX_FILE_BYTES + 1).unwrap();
        assert_eq!(read(file.path()).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }
}
