//! Verdicts: what happens to a packet next.

use crate::model::name::ChainName;
use crate::uapi::*;

/// What happens to a packet next.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Verdict {
    /// Accepts the packet in this base chain; later base chains of the same hook still see it.
    Accept,
    /// Continues with the next rule. Useful in verdict maps.
    Continue,
    /// Drops the packet.
    Drop,
    /// Continues in another chain, without return.
    Goto(ChainName),
    /// Continues in another chain, then returns to the next rule.
    Jump(ChainName),
    /// Returns to the calling chain or, in a base chain, to its policy.
    Return,
}

impl Verdict {
    /// The target chain of a jump or goto.
    #[must_use]
    pub fn chain(&self) -> Option<&ChainName> {
        match self {
            Self::Goto(chain) | Self::Jump(chain) => Some(chain),
            Self::Accept | Self::Continue | Self::Drop | Self::Return => None,
        }
    }

    /// The kernel's code and the target chain.
    pub(crate) fn code(&self) -> (i32, Option<&ChainName>) {
        match self {
            Self::Accept => (NF_ACCEPT, None),
            Self::Continue => (NFT_CONTINUE, None),
            Self::Drop => (NF_DROP, None),
            Self::Goto(chain) => (NFT_GOTO, Some(chain)),
            Self::Jump(chain) => (NFT_JUMP, Some(chain)),
            Self::Return => (NFT_RETURN, None),
        }
    }

    /// The verdict of this code and chain; `None` for other codes.
    pub(crate) fn from_code(code: i32, chain: Option<&ChainName>) -> Option<Self> {
        Some(match (code, chain) {
            (NF_ACCEPT, None) => Self::Accept,
            (NFT_CONTINUE, None) => Self::Continue,
            (NF_DROP, None) => Self::Drop,
            (NFT_RETURN, None) => Self::Return,
            (NFT_GOTO, Some(chain)) => Self::Goto(chain.clone()),
            (NFT_JUMP, Some(chain)) => Self::Jump(chain.clone()),
            _ => return None,
        })
    }
}
