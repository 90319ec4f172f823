//! Which processes may change flannel's tables (`--table-ownership`).

use std::fmt;
use std::str::FromStr;

use flannel_nft::{Kernel, ObserveError, Ownership};
use tracing::info;

/// The requested ownership; docs/nft-versions.md explains when to choose which.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum TableOwnership {
    /// Owned where the kernel has it, else shared.
    Auto,
    /// Only flanneld, while it runs.
    Owner,
    /// Every process with CAP_NET_ADMIN. flanneld repairs what other processes change.
    #[default]
    Shared,
}

/// Why it cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OwnershipError {
    /// The kernel did not say whether it supports owned tables.
    #[error(transparent)]
    Kernel(ObserveError),
    /// A crash or restart would take the rules away.
    #[error(
        "--table-ownership=owner needs a kernel that lets tables outlive their owner (Linux 6.9); use auto or shared here"
    )]
    Unsupported,
}

impl TableOwnership {
    /// Decides `auto`.
    ///
    /// # Errors
    /// [`OwnershipError`].
    pub fn settle(self, kernel: &mut impl Kernel) -> Result<Ownership, OwnershipError> {
        if self == Self::Shared {
            return Ok(Ownership::Shared);
        }
        match (self, Ownership::auto(kernel).map_err(OwnershipError::Kernel)?) {
            (_, Ownership::Owner) => Ok(Ownership::Owner),
            (Self::Owner, Ownership::Shared) => Err(OwnershipError::Unsupported),
            (_, Ownership::Shared) => {
                info!(
                    "this kernel removes tables together with their owner (before Linux 6.9); flanneld uses shared tables, nothing is needed"
                );
                Ok(Ownership::Shared)
            }
        }
    }
}

impl FromStr for TableOwnership {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "owner" => Ok(Self::Owner),
            "shared" => Ok(Self::Shared),
            _ => Err("shared, owner or auto is expected"),
        }
    }
}

impl fmt::Display for TableOwnership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Owner => "owner",
            Self::Shared => "shared",
        })
    }
}

#[cfg(test)]
mod tests {
    use flannel_nft::FakeKernel;

    use super::*;

    #[test]
    fn auto_is_owner_where_tables_outlive_their_owner_and_shared_elsewhere() {
        let settle = |kernel: &mut FakeKernel| TableOwnership::Auto.settle(kernel).unwrap();
        assert_eq!(settle(&mut FakeKernel::default()), Ownership::Owner);
        assert_eq!(settle(&mut FakeKernel::before_6_9()), Ownership::Shared);
    }

    #[test]
    fn owner_is_refused_where_a_restart_would_take_the_rules_away() {
        let refused = TableOwnership::Owner.settle(&mut FakeKernel::before_6_9()).unwrap_err();
        assert!(refused.to_string().contains("use auto or shared"), "{refused}");
        assert_eq!(TableOwnership::Owner.settle(&mut FakeKernel::default()).unwrap(), Ownership::Owner);
        assert_eq!(TableOwnership::Shared.settle(&mut FakeKernel::before_6_9()).unwrap(), Ownership::Shared);
    }
}
