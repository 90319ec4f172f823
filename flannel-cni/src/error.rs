//! Errors as the CNI specification prints them.

use std::error::Error;
use std::fmt;

use serde_json::json;

use crate::spec::OLDEST_VERSION;

/// Why a request failed: the code and text that the runtime gets.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CniError {
    /// A code of the CNI specification, section "Error".
    pub code: u32,
    /// What failed, on which object.
    pub message: String,
    /// The causes; empty if there are none.
    pub details: String,
}

impl CniError {
    pub(crate) fn new(code: u32, message: impl Into<String>, cause: impl Error) -> Self {
        Self::of(code, message, &cause)
    }

    pub(crate) fn of(code: u32, message: impl Into<String>, cause: &dyn Error) -> Self {
        let mut details = cause.to_string();
        let mut source = cause.source();
        while let Some(error) = source {
            details += &format!(": {error}");
            source = error.source();
        }
        Self { code, message: message.into(), details }
    }

    pub(crate) fn plain(code: u32, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: String::new() }
    }

    /// The error as JSON, with the version of the configuration if that can be read.
    pub(crate) fn to_json(&self, conf: &[u8]) -> Vec<u8> {
        #[derive(Default, serde::Deserialize)]
        struct Version {
            #[serde(default, rename = "cniVersion")]
            version: Option<String>,
        }
        let version = serde_json::from_slice::<Version>(conf).unwrap_or_default().version;
        let mut error = json!({
            "cniVersion": version.unwrap_or_else(|| OLDEST_VERSION.to_owned()),
            "code": self.code,
            "msg": self.message,
        });
        if !self.details.is_empty() {
            error["details"] = json!(self.details);
        }
        format!("{error:#}\n").into_bytes()
    }
}

impl fmt::Display for CniError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if self.details.is_empty() { Ok(()) } else { write!(f, ": {}", self.details) }
    }
}

impl Error for CniError {}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] io::Error);

    #[test]
    fn the_details_have_every_cause() {
        let error: Box<dyn Error> = Outer(io::Error::other("inner")).into();
        assert_eq!(CniError::of(5, "cannot", &*error).to_string(), "cannot: outer: inner");
    }
}
