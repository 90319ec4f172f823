//! `Display` in nft's syntax, as `nft list table` of version 1.0.6 prints it.

mod rule;
mod table;

use std::fmt::{self, Formatter};
use std::time::Duration;

pub(crate) use rule::{indented_rule, rule};
pub(crate) use table::{chain_block, counter_block, element, kind, set_block, table_block, verdict};

/// Displays with a function.
pub(crate) struct DisplayFn<F>(pub(crate) F);

impl<F: Fn(&mut Formatter<'_>) -> fmt::Result> fmt::Display for DisplayFn<F> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        (self.0)(f)
    }
}

/// `3d2h1m`, `29s988ms`.
pub(crate) fn duration(duration: Duration, f: &mut Formatter<'_>) -> fmt::Result {
    let total = duration.as_millis();
    let parts = [
        (total / 86_400_000, "d"),
        (total / 3_600_000 % 24, "h"),
        (total / 60_000 % 60, "m"),
        (total / 1_000 % 60, "s"),
        (total % 1_000, "ms"),
    ];
    if total == 0 {
        return f.write_str("0s");
    }
    parts.iter().filter(|(number, _)| *number > 0).try_for_each(|(number, unit)| write!(f, "{number}{unit}"))
}
