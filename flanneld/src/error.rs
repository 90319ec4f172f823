//! How errors are shown: the operation first, then each cause, once.

use std::error::Error;
use std::fmt;

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
