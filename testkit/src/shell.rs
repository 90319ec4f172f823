use std::io;
use std::process::{Command, ExitStatus};

/// Why a command did not do its work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShellError {
    /// There was nothing to run it with.
    #[error("cannot start `{command}`")]
    Start {
        /// The command line.
        command: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It ran and failed.
    #[error("`{command}`: {status}\n{output}")]
    Failed {
        /// The command line.
        command: String,
        /// Its exit status.
        status: ExitStatus,
        /// What it printed, stderr first.
        output: String,
    },
}

/// Runs a shell command in the calling thread's network namespace and returns what it printed on stdout.
///
/// # Panics
/// It fails; the message has the command and what it printed. [`try_sh`] returns that instead.
pub fn sh(command: &str) -> String {
    #[expect(clippy::panic, reason = "a test whose set-up fails has failed")]
    try_sh(command).unwrap_or_else(|error| panic!("{error}"))
}

/// Runs a shell command (`sh -ec`) in the calling thread's network namespace and returns what it printed on stdout.
///
/// # Errors
/// The command ends with another status than 0.
pub fn try_sh(command: &str) -> Result<String, ShellError> {
    let done = Command::new("sh")
        .args(["-ec", command])
        .output()
        .map_err(|source| ShellError::Start { command: command.to_owned(), source })?;
    let stdout = String::from_utf8_lossy(&done.stdout);
    if done.status.success() {
        return Ok(stdout.into_owned());
    }
    let output = format!("{}{stdout}", String::from_utf8_lossy(&done.stderr)).trim_end().to_owned();
    Err(ShellError::Failed { command: command.to_owned(), status: done.status, output })
}
