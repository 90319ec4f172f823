//! Where a packet goes next.

use crate::model::name::ChainName;
use crate::uapi::*;

/// Where a packet goes next.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Verdict {
    /// Out of this base chain, on its way; other base chains of the same hook still see it.
    Accept,
    /// On to the next rule. Useful as an element of a verdict map.
    Continue,
    /// Nowhere.
    Drop,
    /// Into another chain, not to come back to this one.
    Goto(ChainName),
    /// Into another chain, and back behind this rule.
    Jump(ChainName),
    /// Back to the calling chain; in a base chain, to its policy.
    Return,
}

impl Verdict {
    /// The chain it leads to.
    #[must_use]
    pub fn chain(&self) -> Option<&ChainName> {
        match self {
            Self::Goto(chain) | Self::Jump(chain) => Some(chain),
            Self::Accept | Self::Continue | Self::Drop | Self::Return => None,
        }
    }

    /// The kernel's code, and the chain that goes with it.
    pub(crate) fn code(&self) -> (i32, Option<&str>) {
        match self {
            Self::Accept => (NF_ACCEPT, None),
            Self::Continue => (NFT_CONTINUE, None),
            Self::Drop => (NF_DROP, None),
            Self::Goto(chain) => (NFT_GOTO, Some(chain.as_str())),
            Self::Jump(chain) => (NFT_JUMP, Some(chain.as_str())),
            Self::Return => (NFT_RETURN, None),
        }
    }

    /// The verdict with this code; `None` if there is no such verdict.
    pub(crate) fn from_code(code: i32, chain: Option<&str>) -> Option<Self> {
        Some(match (code, chain) {
            (NF_ACCEPT, None) => Self::Accept,
            (NFT_CONTINUE, None) => Self::Continue,
            (NF_DROP, None) => Self::Drop,
            (NFT_RETURN, None) => Self::Return,
            (NFT_GOTO, Some(chain)) => Self::Goto(ChainName::observed(chain)),
            (NFT_JUMP, Some(chain)) => Self::Jump(ChainName::observed(chain)),
            _ => return None,
        })
    }
}
