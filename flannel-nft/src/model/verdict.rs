//! Where a packet goes next.

use crate::model::name::ChainName;

/// Verdict codes (`NF_*`, `NFT_*`).
pub(crate) mod code {
    pub(crate) const DROP: i32 = 0;
    pub(crate) const ACCEPT: i32 = 1;
    pub(crate) const CONTINUE: i32 = -1;
    pub(crate) const JUMP: i32 = -3;
    pub(crate) const GOTO: i32 = -4;
    pub(crate) const RETURN: i32 = -5;
}

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
            Self::Accept => (code::ACCEPT, None),
            Self::Continue => (code::CONTINUE, None),
            Self::Drop => (code::DROP, None),
            Self::Goto(chain) => (code::GOTO, Some(chain.as_str())),
            Self::Jump(chain) => (code::JUMP, Some(chain.as_str())),
            Self::Return => (code::RETURN, None),
        }
    }

    /// The verdict with this code; `None` if there is no such verdict.
    pub(crate) fn from_code(code: i32, chain: Option<&str>) -> Option<Self> {
        Some(match (code, chain) {
            (code::ACCEPT, None) => Self::Accept,
            (code::CONTINUE, None) => Self::Continue,
            (code::DROP, None) => Self::Drop,
            (code::RETURN, None) => Self::Return,
            (code::GOTO, Some(chain)) => Self::Goto(ChainName::observed(chain)),
            (code::JUMP, Some(chain)) => Self::Jump(ChainName::observed(chain)),
            _ => return None,
        })
    }
}
