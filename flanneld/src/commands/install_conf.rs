//! `install-conf SOURCE... DESTINATION`: puts the CNI configuration, or plugins, where the container runtime looks for it.
//!
//! A program of its own in upstream's image, called by an init container; here a name of the daemon's, as the image
//! holds nothing else. The runtime may read the directory at any moment, so the file appears whole. Manifests that call
//! `cp -f SOURCE DESTINATION` in that image instead, as upstream's kustomize base and older charts do, get the same.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

use crate::file;

/// Its name, as a program and as the first argument of `flanneld`.
pub const NAME: &str = "install-conf";

/// Its other name as a program; `-f` may come first.
const COPY: &str = "cp";

/// Bytes of the largest file that is installed: the CNI plugin is this whole program.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// Why the file was not installed; the destination is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InstallError {
    /// Not at least two paths.
    #[error(
        "a SOURCE or the DESTINATION (a file or a directory) is missing; usage: {NAME} SOURCE... DESTINATION"
    )]
    Usage,
    /// Several files for what is no directory.
    #[error("{} is not a directory: several files can only be installed into one", path.display())]
    NotADirectory {
        /// The destination.
        path: PathBuf,
    },
    /// The source cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The source.
        path: PathBuf,
        /// What failed.
        #[source]
        source: io::Error,
    },
    /// The destination cannot be replaced.
    #[error("cannot write {}", path.display())]
    Write {
        /// The destination.
        path: PathBuf,
        /// What failed.
        #[source]
        source: io::Error,
    },
}

/// The paths, if this process was called as `install-conf ...`, `flanneld install-conf ...` or `cp -f ...`.
pub fn asked(arguments: impl IntoIterator<Item = OsString>) -> Option<Vec<OsString>> {
    let mut arguments = arguments.into_iter().peekable();
    let program = PathBuf::from(arguments.next()?);
    let named = |name: &str| program.file_name() == Some(OsStr::new(name));
    let copies = named(COPY);
    let asked = copies || named(NAME) || arguments.next_if(|first| first == NAME).is_some();
    asked.then(|| {
        let _force = arguments.next_if(|first| copies && first == "-f");
        arguments.collect()
    })
}

/// Copies each source to the destination, permissions included, each in one step. A directory gets files of the sources'
/// names.
///
/// # Errors
/// [`InstallError`]. Sources before the one that failed are installed.
pub fn run(arguments: &[OsString]) -> Result<(), InstallError> {
    let Some((destination, sources)) = arguments.split_last().filter(|(_, sources)| !sources.is_empty())
    else {
        return Err(InstallError::Usage);
    };
    let destination = Path::new(destination);
    if sources.len() > 1 && !destination.is_dir() {
        return Err(InstallError::NotADirectory { path: destination.to_owned() });
    }
    sources.iter().try_for_each(|source| install(Path::new(source), destination))
}

fn install(source: &Path, destination: &Path) -> Result<(), InstallError> {
    let unread = |error| InstallError::Read { path: source.to_owned(), source: error };
    let content = file::read_up_to(MAX_FILE_BYTES, source).map_err(unread)?;
    let inside = source.file_name().filter(|_| destination.is_dir()).map(|name| destination.join(name));
    let destination = inside.as_deref().unwrap_or(destination);
    file::replace(destination, &content, file::mode(source).unwrap_or(0o644))
        .map_err(|error| InstallError::Write { path: destination.to_owned(), source: error })?;
    file::remove_leftovers(destination);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn it_is_asked_for_by_name_or_by_first_argument() {
        let paths = Some(words("a b"));
        assert_eq!(asked(words("/opt/bin/install-conf a b")), paths);
        assert_eq!(asked(words("/opt/bin/flanneld install-conf a b")), paths);
        assert_eq!(asked(words("cp -f a b")), paths, "as upstream's kustomize base has it");
        assert_eq!(asked(words("/bin/cp a b")), paths);
        assert_eq!(asked(words("/opt/bin/flanneld --ip-masq install-conf")), None);
        assert_eq!(asked(words("/opt/bin/flanneld cp a b")), None);
        assert_eq!(asked([]), None);
    }

    #[test]
    fn content_and_permissions_arrive_and_nothing_else_is_left() {
        let folder = tempfile::tempdir().expect("a folder");
        let (from, to) = (folder.path().join("from"), folder.path().join("new/10-flannel.conflist"));
        std::fs::write(&from, "{}").expect("written");
        std::fs::set_permissions(&from, Permissions::from_mode(0o640)).expect("set");
        run(&[from.clone().into(), to.clone().into()]).expect("installed");
        std::fs::write(&from, "{\"again\": 1}").expect("written");
        std::fs::write(to.with_file_name(".10-flannel.conflist.aB3dE6"), "{")
            .expect("of one that was killed");
        run(&[from.into(), to.clone().into()]).expect("installed over the first");
        assert_eq!(std::fs::read_to_string(&to).expect("read"), "{\"again\": 1}");
        assert_eq!(file::mode(&to), Some(0o640));
        let folder = to.parent().expect("a parent");
        run(&[to.clone().into(), folder.into()]).expect("onto itself, by its folder");
        let names = std::fs::read_dir(folder).expect("listed").count();
        assert_eq!(names, 1, "no temporary file stays");
    }

    #[test]
    fn several_files_go_into_a_directory_only() {
        let folder = tempfile::tempdir().expect("a folder");
        let (a, b, to) =
            (folder.path().join("bridge"), folder.path().join("portmap"), folder.path().join("bin"));
        std::fs::write(&a, "1").expect("written");
        std::fs::write(&b, "2").expect("written");
        let arguments: Vec<OsString> = [&a, &b, &to].map(Into::into).into();
        assert!(matches!(run(&arguments), Err(InstallError::NotADirectory { .. })));
        std::fs::create_dir(&to).expect("made");
        run(&arguments).expect("installed");
        assert_eq!(std::fs::read_to_string(to.join("bridge")).expect("read"), "1");
        assert_eq!(std::fs::read_to_string(to.join("portmap")).expect("read"), "2");
    }

    #[test]
    fn a_missing_source_leaves_the_destination_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let to = folder.path().join("to");
        std::fs::write(&to, "old").expect("written");
        let error = run(&[folder.path().join("absent").into(), to.clone().into()]).expect_err("refused");
        assert!(error.to_string().contains("absent"), "{error}");
        assert_eq!(std::fs::read_to_string(&to).expect("read"), "old");
        assert!(matches!(run(&words("one")), Err(InstallError::Usage)));
    }
}
