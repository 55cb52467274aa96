//! Server ports: below the ephemeral range, each handed out once.

use std::{
    net::{Ipv6Addr, TcpListener},
    sync::atomic::{AtomicU16, Ordering},
};

static NEXT: AtomicU16 = AtomicU16::new(0);

/// A TCP port that nothing listens on and that no other test of this process got.
pub fn free() -> u16 {
    // Test programs run one after another, but others may run on the same host.
    let base = 10_000 + (std::process::id() % 200) as u16 * 100;
    loop {
        let port = base + NEXT.fetch_add(1, Ordering::Relaxed) % 2000;
        if TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).is_ok() {
            return port;
        }
    }
}
