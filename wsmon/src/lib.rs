//! wsmon: watches every WebSocket on a host from the kernel.

pub mod decode;
pub mod engine;
pub mod export;
pub mod identity;
pub mod kernel;
pub mod model;
