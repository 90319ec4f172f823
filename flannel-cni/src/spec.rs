//! Versions and error codes of the CNI specification.

/// Versions of the specification, oldest first.
pub(crate) const VERSIONS: [&str; 7] = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
/// The version of a configuration without `cniVersion`.
pub(crate) const OLDEST_VERSION: &str = "0.1.0";

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
