use std::fs;

/// The version of the running kernel, as far as features depend on it: `(6, 12)` for 6.12.107.
///
/// Vendors bring features to older kernels, so only use it to tell what an *older* kernel may lack.
///
/// # Panics
/// The kernel does not say, or in a form that Linux does not use.
pub fn kernel_version() -> (u32, u32) {
    const FILE: &str = "/proc/sys/kernel/osrelease";
    let text = fs::read_to_string(FILE).unwrap_or_default();
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    #[expect(clippy::panic, reason = "no test can go on without it")]
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor),
        _ => panic!("{FILE} says {text:?}"),
    }
}
