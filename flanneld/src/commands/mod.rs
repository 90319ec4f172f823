//! What `flanneld NAME` does besides being the daemon.

pub mod cleanup;
mod devices;
pub mod doctor;
pub mod plan;
pub mod status;
mod survey;

/// Status to leave with when there is something to change.
pub const SOMETHING: u8 = 3;

/// What a subcommand has to say, and the status to leave with.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Verdict {
    /// For stdout.
    pub text: String,
    /// The exit status.
    pub code: u8,
}
