//! libFuzzer over the target that the environment variable `FUZZ_TARGET` names.
#![no_main]

use std::sync::LazyLock;

use flannel_fuzz::{TARGETS, Target};
use libfuzzer_sys::fuzz_target;

#[expect(
    clippy::panic,
    clippy::disallowed_methods,
    reason = "libFuzzer has the arguments, and nothing works without a target"
)]
static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    let found = TARGETS.iter().find(|(known, _)| *known == name);
    found.map_or_else(|| panic!("FUZZ_TARGET is {name:?}, none of the targets"), |(_, target)| *target)
});

fuzz_target!(|bytes: &[u8]| TARGET(bytes));
