use std::io;

use crate::ShellError;

/// Why the lab could not do what was asked; always a broken set-up, never a finding.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LabError {
    /// A command that builds the lab failed.
    #[error(transparent)]
    Command(#[from] ShellError),
    /// The system refused something.
    #[error("cannot {what}")]
    System {
        /// What was tried, with its object.
        what: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Something answered in a form the lab does not understand.
    #[error("{what}: {problem}")]
    Unreadable {
        /// The file or program.
        what: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl LabError {
    /// For `map_err`: names what was tried.
    pub(crate) fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { what: what.into(), source }
    }

    pub(crate) fn unreadable(what: impl Into<String>, problem: impl ToString) -> Self {
        Self::Unreadable { what: what.into(), problem: problem.to_string() }
    }
}
