//! The kernel side as user space sees it: load, attach, read.

/// The kernel programs, built by `build/main.rs`.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("WSMON_EBPF_OBJECT"));
