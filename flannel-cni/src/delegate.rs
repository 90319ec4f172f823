//! Running the plugin that does the work.

use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::error::CniError;
use crate::request::Request;
use crate::spec::{BAD_ENVIRONMENT, IO, PLUGIN};

/// Finds the plugin in the folders of `CNI_PATH`.
pub(crate) fn find(path: &OsStr, plugin: &str) -> Result<PathBuf, CniError> {
    // As the specification: a plugin is a file name, never a path.
    let is_name = !plugin.is_empty() && !plugin.contains('/');
    let mut files = std::env::split_paths(path).map(|folder| folder.join(plugin));
    let is_program = |file: &PathBuf| {
        file.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    };
    files.find(|file| is_name && is_program(file)).ok_or_else(|| {
        let message = format!("failed to find plugin {plugin:?} in path [{}]", path.display());
        CniError::plain(PLUGIN, message)
    })
}

/// Runs a plugin with the delegate's configuration; returns what it printed.
///
/// # Errors
/// The plugin's own error as it is; or it cannot be started.
pub(crate) fn run(
    request: &Request,
    command: &str,
    plugin: &str,
    conf: &Map<String, Value>,
) -> Result<Vec<u8>, CniError> {
    let file = find(&request.path, plugin)?;
    let failed = |error: std::io::Error| {
        let message = format!("cannot run the CNI plugin {} for {command}", file.display());
        CniError::new(IO, message, error)
    };
    let mut child = Command::new(&file)
        .envs(request.variables(command))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(failed)?;
    let text = serde_json::to_vec(conf).map_err(|error| failed(error.into()))?;
    // A plugin that ends without reading its configuration has its say through its answer.
    let _unread = child.stdin.take().map(|mut stdin| stdin.write_all(&text));
    let done = child.wait_with_output().map_err(failed)?;
    if done.status.success() {
        return Ok(done.stdout);
    }
    #[derive(Deserialize)]
    struct Printed {
        code: u32,
        msg: String,
        #[serde(default)]
        details: String,
    }
    Err(match serde_json::from_slice::<Printed>(&done.stdout) {
        Ok(Printed { code, msg, details }) => CniError { code, message: msg, details },
        Err(_not_an_error) => {
            let message = format!(
                "the CNI plugin {} failed at {command} ({}) and printed no CNI error; what it wrote to stderr is in the \
                     container runtime's log",
                file.display(),
                done.status
            );
            CniError::plain(PLUGIN, message)
        }
    })
}

/// Whether a delegate refused because it is older than the command.
pub(crate) fn does_not_know(error: &CniError) -> bool {
    error.code == BAD_ENVIRONMENT && error.message.contains("CNI_COMMAND")
}

impl Request {
    fn variables(&self, command: &str) -> Vec<(&'static str, OsString)> {
        let mut variables = vec![("CNI_COMMAND", OsString::from(command)), ("CNI_PATH", self.path.clone())];
        variables.push(("CNI_CONTAINERID", self.container.clone().into()));
        variables.push(("CNI_IFNAME", self.ifname.clone().into()));
        variables.push(("CNI_NETNS", self.netns.clone()));
        variables.push(("CNI_ARGS", self.arguments.clone()));
        variables
    }
}
