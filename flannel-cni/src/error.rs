//! Errors as the CNI specification prints them.

use std::error::Error;
use std::fmt;

use serde_json::json;

/// CNI error code: the version of the configuration is not supported.
pub(crate) const INCOMPATIBLE_VERSION: u32 = 1;
/// CNI error code: an environment variable is missing or invalid.
pub(crate) const BAD_ENVIRONMENT: u32 = 4;
/// CNI error code: an input or output error.
pub(crate) const IO: u32 = 5;
/// CNI error code: the configuration is not valid JSON, or not of the expected form.
pub(crate) const DECODING: u32 = 6;
/// CNI error code: the configuration is invalid.
pub(crate) const BAD_CONF: u32 = 7;
/// CNI error code: try again later.
pub(crate) const TRY_LATER: u32 = 11;
/// CNI error code of `STATUS`: the plugin cannot add containers now.
pub(crate) const NOT_AVAILABLE: u32 = 50;
/// Error code of upstream's plugin for everything else (100 and above are free for plugins).
pub(crate) const PLUGIN: u32 = 999;

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
            "cniVersion": version.unwrap_or_else(|| crate::command::OLDEST_VERSION.to_owned()),
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
