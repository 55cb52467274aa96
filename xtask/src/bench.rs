//! `cargo xtask bench`.

use anyhow::{Result, bail};

use crate::{setup, shell};

/// Measure what the kernel programs cost: prints a Markdown table
///
/// Needs root. Whatever else the machine does makes the numbers worse: see docs/BENCHMARKS.md.
#[derive(clap::Args)]
pub struct Args {
    /// Rounds; the table shows their medians
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Sends in a round of each stream; ping-pong has a fifth of them, there and back
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1000..))]
    packets: u64,
}

pub fn run(args: &Args) -> Result<()> {
    setup::ensure_build()?;
    let mut cargo = shell::cargo();
    cargo.arg("bench");
    if !shell::is_root() {
        if shell::find("sudo").is_none() {
            bail!("the bench needs root, and there is no sudo: run this as root");
        }
        // What cargo built is run as root, cargo itself is not.
        cargo.args(["--config", "target.'cfg(all())'.runner = ['sudo', '--']"]);
    }
    cargo
        .args(["--package", "wsmon", "--bench", "cost", "--"])
        .args(["--rounds", &args.rounds.to_string()])
        .args(["--packets", &args.packets.to_string()]);
    shell::run(&mut cargo)
}
