//! `Display` in nft's syntax, as `nft list table` prints it: `{}` in the form of the newest version, `{:#}` in that
//! of 1.0 ([`NftVersion::display`]).

pub(crate) mod expression;
pub(crate) mod field;
pub(crate) mod object;
pub(crate) mod rule;
mod statement;
mod table;

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use crate::model::format::write_duration;

pub(crate) use object::{flowtable_block, object_block};
pub(crate) use rule::{indented_rule, rule};
pub(crate) use statement::write_rate;
pub(crate) use table::{
    chain_block, counter_block, element, element_rest, kind, set_block, table_block, verdict,
};

/// The version of nft in whose form text and JSON are printed. Each version reads both.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum NftVersion {
    /// nft 1.0.6.
    V1_0,
    /// nft 1.1.7.
    #[default]
    V1_1,
}

impl NftVersion {
    /// Displays a [`Ruleset`](crate::Ruleset), a [`Table`](crate::Table) or a [`Rule`](crate::Rule), or a part of it,
    /// as `nft list` of this version does; a [`Transaction`](crate::Transaction) as a script for its `nft -f`. Their
    /// `Display` prints the form of the newest version.
    ///
    /// ```
    /// use flannel_nft::{NftVersion, Rule, meta};
    ///
    /// let rule = Rule::new().when(meta::mark_masked(0x10, 0xffff_fff0));
    /// assert_eq!(rule.to_string(), "meta mark & 0xfffffff0 == 0x00000010");
    /// assert_eq!(NftVersion::V1_0.display(&rule).to_string(), "meta mark 0x00000010/28");
    /// ```
    pub fn display<T: Display + ?Sized>(self, of: &T) -> impl Display {
        DisplayFn(move |f: &mut Formatter<'_>| match self {
            Self::V1_0 => write!(f, "{of:#}"),
            Self::V1_1 => write!(f, "{of}"),
        })
    }

    /// The version whose form a formatter prints.
    pub(crate) fn of(f: &Formatter<'_>) -> Self {
        if f.alternate() { Self::V1_0 } else { Self::V1_1 }
    }
}

/// Displays with a function.
pub(crate) struct DisplayFn<F>(pub(crate) F);

impl<F: Fn(&mut Formatter<'_>) -> fmt::Result> Display for DisplayFn<F> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        (self.0)(f)
    }
}

/// `3d2h1m`, `29s988ms`.
pub(crate) fn duration(duration: Duration, f: &mut Formatter<'_>) -> fmt::Result {
    write_duration(duration.as_millis(), f)
}
