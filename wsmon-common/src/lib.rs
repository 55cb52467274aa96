//! What the kernel programs and user space share: no aya, no allocation, no panics.
#![no_std]
