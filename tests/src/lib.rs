//! What the end-to-end tests share: programs with a WebSocket in them, exact wire control, and
//! the comparison of what wsmon says with what really happened.
//!
//! Every test uses a server port of its own, so that tests can run side by side under one agent.
//! Set `WSMON_E2E_DRIVERS_ONLY=1` to run the programs against each other without wsmon.

pub mod agent;
pub mod bpf;
pub mod forge;
pub mod ledger;
pub mod metrics;
pub mod namespace;
pub mod port;
pub mod process;
pub mod program;
pub mod raw;
pub mod wire;

use std::time::{Duration, Instant};

/// Says aloud that a test cannot run here; `cargo xtask test` counts it as skipped.
pub fn skip(test: &str, reason: &str) {
    println!("SKIPPED {test}: {reason}");
}

/// Tries `attempt` until it gives a value or `limit` is over; then its last error.
///
/// # Panics
///
/// When the time is over.
pub fn within<T>(limit: Duration, mut attempt: impl FnMut() -> Result<T, String>) -> T {
    let end = Instant::now() + limit;
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(error) if Instant::now() > end => panic!("not within {limit:?}: {error}"),
            Err(_) => std::thread::sleep(Duration::from_millis(30)),
        }
    }
}

/// Numbers that look random and are the same in every run (xorshift).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % limit
    }
}

/// Whether this process may load programs into the kernel, as far as its user tells.
pub fn is_root() -> bool {
    // SAFETY: no arguments, cannot fail.
    unsafe { libc::geteuid() == 0 }
}
