//! Why a store call failed, and how an error is shown with its causes.

use std::error::Error;
use std::fmt;

/// Why a store call failed. Unless stated otherwise, the call changed nothing in the store.
///
/// `Display` prints the operation, the object and the advice; the cause is in `source`.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {object}: {advice}")]
pub struct StoreError {
    /// The operation, such as `acquire a lease in`. Fits after "cannot".
    pub operation: &'static str,
    /// The object of the operation: a path, an endpoint, a key.
    pub object: String,
    /// The problem, and what to do about it.
    pub advice: String,
    /// The kind, for code that decides whether to retry.
    pub kind: StoreErrorKind,
    /// The underlying error, if there is one.
    #[source]
    pub source: Option<Box<dyn Error + Send + Sync>>,
}

/// The kinds of [`StoreError`], by what the caller has to do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// The store is busy, locked, unreachable or full. The same call may succeed later.
    Unavailable,
    /// A permission is missing, a path is wrong or contents are damaged. An operator has to act first.
    Unusable,
    /// Every subnet of the range is leased.
    OutOfSubnets,
    /// This node no longer holds the lease that it wants to update.
    NotHeld,
    /// Another node already publishes this backend data, such as its VTEP MAC address. Publish other data.
    IdentityTaken,
}

/// Prints an error followed by its causes: `operation: cause: its cause`.
///
/// This crate's errors do not print their causes themselves, so no text appears twice.
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

/// An error and its causes, those inside of I/O errors included.
pub(crate) fn with_causes<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    // `io::Error::source` skips the error inside: it returns the source of that error.
    std::iter::successors(Some(error), |cause: &&'a (dyn Error + 'static)| {
        let cause: &'a (dyn Error + 'static) = *cause;
        match cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => cause.source(),
        }
    })
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
