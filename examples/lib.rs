//! Small complete programs that embed `flannel-nft` and `flannel-vxlan`; each `[[example]]` is one file beside this one.

/// The library example of the README, so that it compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
