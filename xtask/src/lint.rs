//! `cargo xtask lint`.

use std::{env, process::Command};

use anyhow::{Result, bail};

use crate::{setup, shell, toolchain};

/// Check formatting, clippy on user space and kernel programs, licences and sources
#[derive(clap::Args)]
pub struct Args {
    /// Let rustfmt and clippy repair what they can
    #[arg(long)]
    fix: bool,
}

pub fn run(args: &Args) -> Result<()> {
    setup::ensure_build()?;
    let mut failed = Vec::new();
    for (name, mut command) in checks(args.fix) {
        println!("lint: {name}");
        if let Err(error) = shell::run(&mut command) {
            eprintln!("lint: {error:#}");
            failed.push(name);
        }
    }
    if !failed.is_empty() {
        bail!("lint: failed: {}", failed.join(", "));
    }
    println!("lint: clean");
    Ok(())
}

fn checks(fix: bool) -> Vec<(&'static str, Command)> {
    let mut rustfmt = shell::cargo();
    rustfmt.args(["fmt", "--all"]);
    if !fix {
        rustfmt.args(["--", "--check"]);
    }

    let mut rustfmt_fuzz = shell::cargo();
    rustfmt_fuzz.args(["fmt", "--manifest-path", "fuzz/Cargo.toml"]);
    if !fix {
        rustfmt_fuzz.args(["--", "--check"]);
    }

    let mut user_space = shell::cargo();
    user_space.args(["clippy", "--workspace", "--all-targets"]);
    let mut kernel = toolchain::cargo(shell::root(), env::consts::ARCH, "clippy");
    let mut fuzz = shell::cargo();
    // Without libFuzzer, which only linking needs.
    fuzz.args(["clippy", "--manifest-path", "fuzz/Cargo.toml"])
        .args(["--lib", "--bins", "--no-default-features"]);
    for clippy in [&mut user_space, &mut kernel, &mut fuzz] {
        if fix {
            clippy.args(["--fix", "--allow-dirty", "--allow-staged"]);
        }
        clippy.args(["--", "--deny", "warnings"]);
    }

    let mut checks = vec![
        ("rustfmt", rustfmt),
        ("rustfmt, fuzzers", rustfmt_fuzz),
        ("clippy, user space", user_space),
        ("clippy, kernel programs", kernel),
        ("clippy, fuzzers", fuzz),
    ];
    if let Some(tool) = shell::tool("cargo-deny") {
        let mut deny = Command::new(tool);
        // The advisories need a database from the network; they are not a matter of this tree.
        deny.current_dir(shell::root()).args([
            "--log-level",
            "error",
            "check",
            "bans",
            "licenses",
            "sources",
        ]);
        checks.push(("cargo-deny", deny));
    } else {
        println!("lint: SKIPPED cargo-deny: not installed (`cargo xtask setup` does)");
    }
    checks
}
