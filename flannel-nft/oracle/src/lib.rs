//! Second and third opinions on what `flannel-nft` sends to the kernel.
//!
//! A [`Plan`] is a table in words that three libraries have: [`Plan::ours`] makes a `flannel_nft::Ruleset` of it,
//! [`with_nftnl`] the messages of `nftnl` and `libnftnl`, [`with_rustables`] those of `rustables`. [`State`] is what the
//! kernel then holds, as `nft` lists it and as it dumps it, so that the three can be compared byte by byte.
//!
//! `rustables` is GPL-3.0-or-later and `libnftnl` GPL-2.0-or-later, and they need `libclang`, `libnftnl` and `libmnl` to build:
//! this crate is for tests and benches, and outside the workspace's `default-members`.

mod plan;
mod state;
mod uapi;
pub mod with_nftnl;
pub mod with_rustables;

pub use plan::{Action, Condition, Plan, PlannedChain, PlannedRule, Step};
pub use state::{State, differences, listed_differences};
