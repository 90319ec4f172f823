use std::fs;
use std::path::Path;

use crate::{setting, try_sh};

/// Compares `text` with the checked-in file `path`, which is relative to the package of the calling test.
///
/// `UPDATE_GOLDEN=1` in the environment writes the file instead; review the change with `git diff`.
///
/// # Panics
/// The file differs or is missing; the message has a unified diff.
#[expect(clippy::panic, reason = "it is an assertion")]
pub fn golden(path: impl AsRef<Path>, text: &str) {
    let path = path.as_ref();
    if setting("UPDATE_GOLDEN").is_some() {
        let folder = path.parent().unwrap_or_else(|| Path::new("."));
        if let Err(error) = fs::create_dir_all(folder).and_then(|()| fs::write(path, text)) {
            panic!("cannot write golden file {}: {error}", path.display());
        }
        return;
    }
    let advice = "UPDATE_GOLDEN=1 writes it";
    match fs::read_to_string(path) {
        Ok(expected) if expected == text => {}
        Ok(_) => panic!("{} differs ({advice}):\n{}", path.display(), difference(path, text)),
        Err(error) => panic!("cannot read golden file {} ({advice}): {error}", path.display()),
    }
}

fn difference(expected: &Path, actual: &str) -> String {
    let compared = tempfile::NamedTempFile::new().and_then(|file| {
        fs::write(file.path(), actual)?;
        Ok(file)
    });
    match compared {
        Ok(file) => {
            // diff ends with 1 when it finds a difference, which is what it is for.
            let command =
                format!("diff -u --label expected --label actual {:?} {:?} || true", expected, file.path());
            try_sh(&command).unwrap_or_else(|error| error.to_string())
        }
        Err(error) => format!("cannot show the difference: {error}"),
    }
}
