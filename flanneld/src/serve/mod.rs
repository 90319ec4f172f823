//! How others see the daemon: HTTP, metrics, the status page, the local socket and systemd.

pub mod http;
pub mod listen;
pub mod metrics;
pub mod status_page;
pub mod status_socket;
pub(crate) mod systemd;
