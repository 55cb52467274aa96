//! What the kernel programs, `wsmon replay` and the fuzzers share: the parser of WebSocket
//! streams (RFC 6455) and the layouts in which the kernel leaves its results.
//!
//! Nothing here allocates, panics or knows where the bytes come from.
#![cfg_attr(not(test), no_std)]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

pub mod cursor;
pub mod event;
pub mod frame;
pub mod head;
pub mod slice;
pub mod slot;
pub mod stream;
pub mod verifier;
