//! `cargo xtask build`.

use std::path::PathBuf;

use anyhow::Result;

use crate::{setup, shell};

/// Build the kernel programs and wsmon, which carries them inside
#[derive(clap::Args)]
pub struct Args {
    /// Build what is shipped: optimised
    #[arg(long)]
    release: bool,
}

pub fn run(args: &Args) -> Result<()> {
    let program = wsmon(args.release)?;
    println!("{}", program.display());
    Ok(())
}

/// Builds wsmon and returns the program's file.
pub fn wsmon(release: bool) -> Result<PathBuf> {
    setup::ensure_build()?;
    let mut cargo = shell::cargo();
    cargo.args(["build", "--package", "wsmon"]);
    if release {
        cargo.arg("--release");
    }
    shell::run(&mut cargo)?;
    let profile = if release { "release" } else { "debug" };
    Ok(shell::root().join("target").join(profile).join("wsmon"))
}
