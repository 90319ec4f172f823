//! Small files that others read and write too: replaced whole, never half; read whole, never without end.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata, Permissions};
use std::io::{self, BufWriter, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use tracing::debug;

pub use flannel_lease::file::{read, read_text, read_up_to, write_advice};

/// Characters at the end of a temporary file's name.
const RANDOM_CHARACTERS: usize = 6;

/// Replaces `path` by `content`: writes a temporary file in the same directory, syncs it, and renames it over `path`.
///
/// Its directory is made if absent (mode 0755). The new file has permission bits `mode`, whatever the umask.
///
/// # Errors
/// Any that the file system has; the old file is still there then.
pub fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    replace_by(path, mode, |file| file.write_all(content))
}

/// The same, with what `write` writes, so that it need not be in memory all at once.
///
/// # Errors
/// As [`replace`], and what `write` fails with.
pub fn replace_by(
    path: &Path,
    mode: u32,
    write: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>,
) -> io::Result<()> {
    let directory = directory_of(path);
    std::fs::DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
    let file = tempfile::Builder::new()
        .prefix(&temporary_prefix(path))
        .rand_bytes(RANDOM_CHARACTERS)
        // `tempfile_in` hides the number of the error, which decides on the advice.
        .make_in(directory, |path| File::options().write(true).create_new(true).mode(0o600).open(path))?;
    let mut buffered = BufWriter::with_capacity(64 << 10, file.as_file());
    write(&mut buffered)?;
    buffered.flush()?;
    drop(buffered);
    file.as_file().set_permissions(Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// Removes the temporary files of [`replace`] that processes which were killed have left beside `path`. Only for a
/// caller that is the only one to replace `path`.
pub fn remove_leftovers(path: &Path) {
    let prefix = temporary_prefix(path);
    let entries = std::fs::read_dir(directory_of(path)).into_iter().flatten().flatten();
    let is_leftover = |name: &OsStr| {
        let random = name.as_bytes().strip_prefix(prefix.as_bytes());
        random.is_some_and(|random| {
            random.len() == RANDOM_CHARACTERS && random.iter().all(u8::is_ascii_alphanumeric)
        })
    };
    for entry in entries.filter(|entry| is_leftover(&entry.file_name())) {
        if let Err(error) = std::fs::remove_file(entry.path()) {
            debug!(%error, path = %entry.path().display(), "cannot remove a temporary file of an earlier run");
        }
    }
}

fn temporary_prefix(path: &Path) -> OsString {
    let mut prefix = OsString::from(".");
    prefix.push(path.file_name().unwrap_or_default());
    prefix.push(".");
    prefix
}

/// The directory that a file is in; `.` for a bare name.
pub(crate) fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

/// A file that goes with `path`: of its name, less `.env`, with `.suffix` at the end.
///
/// Whatever else the name ends in stays, so that `net.v4` and `net.v6` have a file each.
#[must_use]
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let is_env = path.extension().is_some_and(|extension| extension == "env");
    let mut name = if is_env { path.file_stem() } else { path.file_name() }.unwrap_or_default().to_owned();
    name.push(".");
    name.push(suffix);
    path.with_file_name(name)
}

/// The permission bits of `path`; nothing if there is no such regular file.
#[must_use]
pub fn mode(path: &Path) -> Option<u32> {
    let metadata = std::fs::metadata(path).ok().filter(Metadata::is_file)?;
    Some(metadata.permissions().mode() & 0o7777)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temporary_files_of_a_killed_process_are_removed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("subnet.env");
        let others = ["subnet.env", ".subnet.env.swp", ".subnet.env.backup.1", ".subnet.state.json.aB3dE6"];
        for name in others.iter().chain(&[".subnet.env.aB3dE6", ".subnet.env.000000"]) {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        remove_leftovers(&path);
        let left = std::fs::read_dir(folder.path()).unwrap();
        let left: std::collections::BTreeSet<_> = left.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, others.iter().map(OsString::from).collect());
    }

    #[test]
    fn a_directory_in_the_place_of_the_file_is_to_be_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("subnet.env");
        std::fs::create_dir(&path).unwrap();
        let error = replace(&path, b"text", 0o644).unwrap_err();
        assert_eq!(write_advice(&error), "remove the directory of that name", "{error}");
        let names: Vec<_> =
            std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(names, [path], "no temporary file is left");
    }

    #[test]
    fn the_error_of_the_system_call_decides_on_the_advice() {
        let folder = tempfile::tempdir().unwrap();
        let error = replace(&folder.path().join("x".repeat(255)), b"text", 0o644).unwrap_err();
        assert_eq!(write_advice(&error), "shorten its path", "{error}");
    }

    #[test]
    fn files_that_differ_in_more_than_env_have_companions_of_their_own() {
        for (path, companion) in [
            ("/run/flannel/subnet.env", "/run/flannel/subnet.sock"),
            ("/run/flannel/net.v4", "/run/flannel/net.v4.sock"),
            ("/run/flannel/net.v6", "/run/flannel/net.v6.sock"),
            ("net.v4.env", "net.v4.sock"),
            ("/run/flannel/net.sock", "/run/flannel/net.sock.sock"),
            ("/run/.env", "/run/.env.sock"),
        ] {
            assert_eq!(beside(Path::new(path), "sock"), Path::new(companion));
        }
    }
}
