//! The CNI plugin `flannel`: passes a node's subnet on to the plugin that makes its pods' interfaces.
//!
//! ```text
//! runtime ── CNI_COMMAND, configuration ─▶ flannel ── configuration with subnet, MTU, routes ─▶ bridge ─▶ host-local
//!                                             ▲
//!                        /run/flannel/subnet.env, written by flanneld
//! ```
//!
//! Formats are the same as in upstream's plugin (github.com/flannel-io/cni-plugin): the configuration, the delegate's
//! configuration saved per container below `dataDir`, and the error texts that kubelet shows.
//!
//! Limits: the delegate and its IPAM plugin are the reference plugins; this crate makes no interface itself. Linux only.

mod command;
mod conf;
mod delegate;
mod error;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod request;
mod spec;
mod stale_bridge;
mod state;
mod subnet_env;
mod uapi;

pub use command::answer;
pub use error::CniError;
pub use request::Request;
pub use subnet_env::{InvalidValue, SubnetEnv, gateway};

use std::io::{Read, Write};
use std::process::ExitCode;

/// Most bytes of configuration that are read.
const MAX_CONF_BYTES: u64 = 4 << 20;

/// Runs as the plugin: takes the request from the environment variables `CNI_*` and the configuration from standard
/// input, and writes the answer or the error to standard output, as the CNI specification says.
///
/// `variable` looks up an environment variable. Returns success, or 1 after an error.
pub fn run(
    variable: impl Fn(&str) -> Option<std::ffi::OsString>,
    input: impl Read,
    mut output: impl Write,
) -> ExitCode {
    let mut conf = Vec::new();
    let read = input.take(MAX_CONF_BYTES).read_to_end(&mut conf);
    let answer = read
        .map_err(|error| {
            CniError::new(
                spec::IO,
                "cannot read the network configuration from standard input; nothing was done",
                error,
            )
        })
        .and_then(|_| Request::from_environment(variable))
        .and_then(|request| answer(&request, &conf));
    let (text, code) = match answer {
        Ok(answer) => (answer, ExitCode::SUCCESS),
        Err(error) => (error.to_json(&conf), ExitCode::FAILURE),
    };
    // If the runtime has closed its end, there is no other way to report that.
    let _closed = output.write_all(&text);
    code
}
