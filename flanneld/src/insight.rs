//! What others see of the daemon: its status, asked for over HTTP or the local socket, and what systemd is told.

pub mod asker;
pub mod health;
pub mod http;
pub mod local;
pub mod metrics;
pub(crate) mod notify;
pub mod page;
pub mod status;
pub mod survey;
pub mod telemetry;
