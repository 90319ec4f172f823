//! The delegate's configuration, saved per container so that DEL undoes what ADD did, whatever subnet.env says by then.
//!
//! Upstream's plugin names the file after the container alone. So does this one for the interface `eth0`; a second
//! interface of a container gets a file of its own.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

/// The folder that holds one file per attachment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct State<'a>(pub(crate) &'a Path);

impl State<'_> {
    fn file(self, container: &str, ifname: &str) -> PathBuf {
        if ifname == "eth0" { self.0.join(container) } else { self.0.join(format!("{container}.{ifname}")) }
    }

    /// Saves the configuration: the whole file or nothing, mode 0600 in a folder of mode 0700.
    pub(crate) fn save(self, container: &str, ifname: &str, delegate: &Map<String, Value>) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(self.0)?;
        let mut file = tempfile::Builder::new().prefix(".").tempfile_in(self.0)?;
        file.write_all(&serde_json::to_vec(delegate)?)?;
        file.as_file().set_permissions(fs::Permissions::from_mode(0o600))?;
        file.as_file().sync_all()?;
        file.persist(self.file(container, ifname)).map_err(|error| error.error)?;
        Ok(())
    }

    /// What was saved for the attachment, and its file; `None` if nothing was. Upstream's plugin saves every interface
    /// under the container's name.
    pub(crate) fn load(self, container: &str, ifname: &str) -> io::Result<Option<(PathBuf, Vec<u8>)>> {
        for file in [self.file(container, ifname), self.0.join(container)] {
            match fs::read(&file) {
                Ok(content) => return Ok(Some((file, content))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Every saved attachment: container, interface, file.
    pub(crate) fn all(self) -> io::Result<Vec<(String, String, PathBuf)>> {
        let entries = match fs::read_dir(self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            if name.starts_with('.') || !entry.file_type()?.is_file() {
                continue;
            }
            // Container IDs have dots at most in names that runtimes for tests make up.
            let (container, ifname) = name.split_once('.').unwrap_or((&name, "eth0"));
            found.push((container.to_owned(), ifname.to_owned(), entry.path()));
        }
        Ok(found)
    }
}
