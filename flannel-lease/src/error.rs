//! Why a store call failed, and how an error is shown with its causes.

use std::error::Error;
use std::fmt;

/// Why a store did not do what it was asked. Nothing was changed in it unless said otherwise.
///
/// The text names operation and object and says what to do; the cause is in `source`.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {object}: {advice}")]
pub struct StoreError {
    /// What was tried, such as `acquire a lease in`.
    pub operation: &'static str,
    /// What it was tried on: a path, an endpoint, a key.
    pub object: String,
    /// What is wrong, and what to do about it.
    pub advice: String,
    /// What kind of trouble, for deciding whether to wait.
    pub kind: StoreErrorKind,
    /// The cause, if it comes from below.
    #[source]
    pub source: Option<Box<dyn Error + Send + Sync>>,
}

/// The kinds of [`StoreError`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// Busy, locked, unreachable or full: the same call may succeed later.
    Unavailable,
    /// No permission, wrong path or damaged contents: an operator has to act first.
    Unusable,
    /// Every subnet of the range is leased.
    OutOfSubnets,
    /// The lease to be updated is no longer this node's.
    NotHeld,
    /// Another node publishes the backend data of this one, such as its VTEP MAC address: publish other data.
    IdentityTaken,
}

/// Shows an error with its causes: `operation: cause: its cause`.
///
/// Our errors never print their cause themselves, so nothing appears twice.
#[derive(Clone, Copy, Debug)]
pub struct Chain<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot write `{path}`")]
    struct Outer {
        path: &'static str,
        #[source]
        cause: std::io::Error,
    }

    #[test]
    fn every_cause_is_shown_once() {
        let error = Outer { path: "/x", cause: std::io::Error::from_raw_os_error(28) };
        assert_eq!(Chain(&error).to_string(), "cannot write `/x`: No space left on device (os error 28)");
    }
}
