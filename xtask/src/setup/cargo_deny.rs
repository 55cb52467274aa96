//! cargo-deny, which `cargo xtask lint` runs: licences, sources, bans.

use std::process::Command;

use anyhow::Result;

use super::Part;
use crate::shell;

pub const PART: Part = Part {
    name: "cargo-deny",
    note: "into target/tools, some minutes",
    present,
    install,
};

const VERSION: &str = "0.20.2";

fn present() -> bool {
    shell::tool("cargo-deny")
        .is_some_and(|tool| shell::succeeds(Command::new(tool).arg("--version")))
}

fn install() -> Result<()> {
    super::cargo_install("cargo-deny", VERSION)
}
