//! Small files that others read and write too: replaced whole, never half; read whole, never without end.

use std::fs::{File, Permissions};
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

pub use flannel_lease::file::{read, read_text, read_up_to};

/// Replaces `path` by `content`: a temporary file beside it, synced, then renamed over it.
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
    let directory =
        path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    std::fs::DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
    let mut prefix = std::ffi::OsString::from(".");
    prefix.push(path.file_name().unwrap_or_default());
    prefix.push(".");
    let file = tempfile::Builder::new().prefix(&prefix).tempfile_in(directory)?;
    let mut buffered = BufWriter::with_capacity(64 << 10, file.as_file());
    write(&mut buffered)?;
    buffered.flush()?;
    drop(buffered);
    file.as_file().set_permissions(Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
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

/// The permission bits of `path`; nothing if there is no such file.
#[must_use]
pub fn mode(path: &Path) -> Option<u32> {
    std::fs::metadata(path).ok().map(|metadata| metadata.permissions().mode() & 0o7777)
}

#[cfg(test)]
mod tests {
    use super::*;

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
