//! Randomness and clocks that only depend on the seed.
//!
//! The daemon draws random numbers (`rand`, the order of `select!` in tokio, hash maps) and reads clocks. All of that ends in
//! two functions of the C library. This program has its own ones of the same names, which the linker prefers, so the code
//! under test needs no change. Only one thread may run.
#![expect(unsafe_code, reason = "the C library's functions are replaced by functions of the same signature")]

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use nix::libc::{
    CLOCK_REALTIME, SYS_clock_gettime, SYS_getrandom, c_int, c_long, c_uint, clockid_t, size_t, ssize_t,
};
use nix::libc::{syscall, time_t, timespec};
use tokio::time::Instant;

/// Whether this process simulates; otherwise both functions are as ever.
static IS_SIMULATED: AtomicBool = AtomicBool::new(false);
static RANDOM: AtomicU64 = AtomicU64::new(0);
/// When the runtime's clock was first read.
static START: OnceLock<Instant> = OnceLock::new();

/// The date of the start, in seconds since 1970, and the monotonic clock's.
const START_DATE: u64 = 1_700_000_000;
const START_UPTIME: u64 = 1000;

/// Makes all randomness follow from `seed` and stops the clocks until [`follow_tokio`].
pub(crate) fn simulate(seed: u64) {
    RANDOM.store(seed, Ordering::Relaxed);
    IS_SIMULATED.store(true, Ordering::Relaxed);
}

/// Lets the clocks follow the paused clock of the present runtime.
pub(crate) fn follow_tokio() -> Instant {
    *START.get_or_init(Instant::now)
}

/// SplitMix64.
fn next_random() -> u64 {
    let mut z =
        RANDOM.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// getrandom(2).
///
/// # Safety
/// As the C library's: `buffer` has room for `length` bytes.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn getrandom(buffer: *mut u8, length: size_t, flags: c_uint) -> ssize_t {
    if !IS_SIMULATED.load(Ordering::Relaxed) {
        // SAFETY: the caller's arguments are the system call's.
        return ssize_t::try_from(unsafe { syscall(SYS_getrandom, buffer, length, flags) }).unwrap_or(-1);
    }
    for at in 0..length {
        let [byte, ..] = next_random().to_le_bytes();
        // SAFETY: `at` is less than `length`.
        unsafe { buffer.add(at).write(byte) };
    }
    ssize_t::try_from(length).unwrap_or(-1)
}

/// clock_gettime(2).
///
/// # Safety
/// As the C library's: `time` is valid for writes.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn clock_gettime(clock: clockid_t, time: *mut timespec) -> c_int {
    if !IS_SIMULATED.load(Ordering::Relaxed) {
        // SAFETY: the caller's arguments are the system call's.
        return c_int::try_from(unsafe { syscall(SYS_clock_gettime, clock, time) }).unwrap_or(-1);
    }
    // With a paused clock, tokio reads no other.
    let elapsed = START.get().map(Instant::elapsed).unwrap_or_default();
    let start = if clock == CLOCK_REALTIME { START_DATE } else { START_UPTIME };
    let seconds = time_t::try_from(start + elapsed.as_secs()).unwrap_or(time_t::MAX);
    // SAFETY: the caller's pointer is valid for writes.
    unsafe { time.write(timespec { tv_sec: seconds, tv_nsec: c_long::from(elapsed.subsec_nanos()) }) };
    0
}
