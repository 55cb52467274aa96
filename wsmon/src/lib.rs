//! wsmon: watches every WebSocket on a host from the kernel.

pub mod kernel;
