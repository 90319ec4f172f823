//! Configuration files that others write: read whole, but never without end.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// Bytes of the largest file of configuration that is read.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// Reads a file of configuration: at most 16 MiB, so that a wrong path cannot fill the memory.
///
/// # Errors
/// As [`std::fs::read`]; [`io::ErrorKind::FileTooLarge`].
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    read_up_to(MAX_FILE_BYTES, path)
}

/// The same for a file of at most `largest` bytes.
///
/// # Errors
/// As [`read`].
pub fn read_up_to(largest: u64, path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    let mut file = File::open(path)?.take(largest.saturating_add(1));
    file.read_to_end(&mut content)?;
    if file.limit() == 0 {
        let problem = format!("larger than {} MiB", largest >> 20);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, problem));
    }
    Ok(content)
}

/// The same as text.
///
/// # Errors
/// As [`read`]; [`io::ErrorKind::InvalidData`] if it is not UTF-8.
pub fn read_text(path: &Path) -> io::Result<String> {
    String::from_utf8(read(path)?)
        .map_err(|_where| io::Error::new(io::ErrorKind::InvalidData, "not UTF-8 text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_end_is_refused_instead_of_read() {
        let error = read(Path::new("/dev/zero")).unwrap_err();
        assert_eq!(error.to_string(), "larger than 16 MiB");
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(MAX_FILE_BYTES).unwrap();
        assert_eq!(read(file.path()).unwrap().len(), 16 << 20);
        file.as_file().set_len(MAX_FILE_BYTES + 1).unwrap();
        assert_eq!(read(file.path()).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }
}
