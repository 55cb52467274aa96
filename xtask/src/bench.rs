//! `cargo xtask bench`.

use anyhow::{Result, bail};

/// Measure what wsmon costs (not written yet)
#[derive(clap::Args)]
pub struct Args {}

pub fn run(_args: &Args) -> Result<()> {
    bail!("there is nothing to measure yet");
}
