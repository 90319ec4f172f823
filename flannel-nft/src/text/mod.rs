//! `Display` in nft's syntax, as `nft list table` of version 1.0.6 prints it.

pub(crate) mod expression;
pub(crate) mod object;
pub(crate) mod rule;
mod statement;
mod table;

use std::fmt::{self, Formatter};
use std::time::Duration;

use crate::model::format::write_duration;

pub(crate) use object::{flowtable_block, object_block};
pub(crate) use rule::{indented_rule, rule};
pub(crate) use statement::write_limit;
pub(crate) use table::{
    chain_block, counter_block, element, element_rest, kind, set_block, table_block, verdict,
};

/// Displays with a function.
pub(crate) struct DisplayFn<F>(pub(crate) F);

impl<F: Fn(&mut Formatter<'_>) -> fmt::Result> fmt::Display for DisplayFn<F> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        (self.0)(f)
    }
}

/// `3d2h1m`, `29s988ms`.
pub(crate) fn duration(duration: Duration, f: &mut Formatter<'_>) -> fmt::Result {
    write_duration(duration.as_millis(), f)
}
