//! What the runtime asks for.

use std::ffi::OsString;

use crate::error::CniError;
use crate::spec::BAD_ENVIRONMENT;

/// What the runtime asks for, by environment variables.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// `CNI_COMMAND`.
    pub command: String,
    /// `CNI_CONTAINERID`.
    pub container: String,
    /// `CNI_IFNAME`: the interface in the container.
    pub ifname: String,
    /// `CNI_NETNS`: path of the container's network namespace; may be empty for DEL.
    pub netns: OsString,
    /// `CNI_ARGS`, passed on.
    pub arguments: OsString,
    /// `CNI_PATH`: the folders with plugins.
    pub path: OsString,
}

impl Request {
    /// Takes the request from environment variables, which `variable` looks up.
    ///
    /// # Errors
    /// A variable that the command needs is missing or invalid.
    pub fn from_environment(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, CniError> {
        let text = |name: &str| variable(name).unwrap_or_default().to_string_lossy().into_owned();
        let request = Self {
            command: text("CNI_COMMAND"),
            container: text("CNI_CONTAINERID"),
            ifname: text("CNI_IFNAME"),
            netns: variable("CNI_NETNS").unwrap_or_default(),
            arguments: variable("CNI_ARGS").unwrap_or_default(),
            path: variable("CNI_PATH").unwrap_or_default(),
        };
        let of_container = matches!(request.command.as_str(), "ADD" | "CHECK" | "DEL");
        let with_namespace = matches!(request.command.as_str(), "ADD" | "CHECK");
        let mut missing = Vec::new();
        missing.extend((of_container && request.container.is_empty()).then_some("CNI_CONTAINERID"));
        missing.extend((of_container && request.ifname.is_empty()).then_some("CNI_IFNAME"));
        missing.extend((with_namespace && request.netns.is_empty()).then_some("CNI_NETNS"));
        let with_plugins = of_container || matches!(request.command.as_str(), "STATUS" | "GC");
        missing.extend((with_plugins && request.path.is_empty()).then_some("CNI_PATH"));
        if !missing.is_empty() {
            let message = format!("required env variables [{}] missing", missing.join(","));
            return Err(CniError::plain(BAD_ENVIRONMENT, message));
        }
        // Both become part of a file name.
        let is_name = |text: &str| {
            let mut letters = text.bytes();
            letters.next().is_some_and(|first| first.is_ascii_alphanumeric())
                && letters.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
        };
        if of_container && !is_name(&request.container) {
            let message = format!("invalid characters in containerID {:?}", request.container);
            return Err(CniError::plain(BAD_ENVIRONMENT, message));
        }
        if of_container
            && (request.ifname.len() > 15
                || request.ifname.contains(['/', ':'])
                || request.ifname.starts_with('.'))
        {
            let message = format!(
                "invalid interface name {:?} in CNI_IFNAME: use 1 to 15 bytes without `/` and `:` that do not begin with a dot",
                request.ifname
            );
            return Err(CniError::plain(BAD_ENVIRONMENT, message));
        }
        Ok(request)
    }
}
