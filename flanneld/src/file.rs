//! Files that others read while they are replaced: always the old one or the new one, whole.

use std::fs::{File, Permissions};
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;

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

/// The permission bits of `path`; nothing if there is no such file.
#[must_use]
pub fn mode(path: &Path) -> Option<u32> {
    std::fs::metadata(path).ok().map(|metadata| metadata.permissions().mode() & 0o7777)
}
