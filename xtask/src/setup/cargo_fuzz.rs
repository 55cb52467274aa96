//! cargo-fuzz and the nightly toolchain, by which `cargo xtask fuzz` builds the fuzzers.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use super::Part;
use crate::{shell, toolchain};

pub const PARTS: [Part; 2] = [
    Part {
        name: "cargo-fuzz",
        note: "into target/tools, about a minute",
        present: has_tool,
        install,
    },
    Part {
        name: "nightly toolchain",
        note: "not by setup",
        present: has_nightly,
        install: || bail!(HOW_TO_GET_NIGHTLY),
    },
];

pub const HOW_TO_GET_NIGHTLY: &str =
    "the fuzzers need `rustup toolchain install nightly --profile minimal`, and a C++ compiler";

const VERSION: &str = "0.13.2";

pub fn has_tool() -> bool {
    shell::tool("cargo-fuzz")
        .is_some_and(|tool| shell::succeeds(Command::new(tool).arg("--version")))
}

pub fn install() -> Result<()> {
    super::cargo_install("cargo-fuzz", VERSION)
}

pub fn has_nightly() -> bool {
    shell::succeeds(nightly("rustc").arg("--version"))
}

/// `cargo fuzz <subcommand>`, built by the nightly toolchain into a target folder of its own.
pub fn command(subcommand: &str) -> Result<Command> {
    let tool = shell::tool("cargo-fuzz").context("cargo-fuzz is not installed")?;
    let mut command = nightly("");
    command
        .arg(tool)
        .arg(subcommand)
        .args(["--fuzz-dir", "fuzz"])
        .arg("--target-dir")
        .arg(target_folder())
        .stdin(Stdio::null());
    Ok(command)
}

pub fn target_folder() -> PathBuf {
    shell::root().join("target/fuzz")
}

/// The machine for which the fuzzers are built, as rustc names it.
pub fn host() -> Option<String> {
    let about = toolchain::rustc(&["--version", "--verbose"])?;
    let host = about.lines().find_map(|line| line.strip_prefix("host: "))?;
    Some(host.to_owned())
}

/// A program under the nightly toolchain, without what the cargo that runs this task has set.
fn nightly(program: &str) -> Command {
    let mut command = Command::new("rustup");
    command
        .current_dir(shell::root())
        .args(["run", "nightly"])
        .args((!program.is_empty()).then_some(program))
        .env("RUSTUP_AUTO_INSTALL", "0");
    for name in [
        "CARGO",
        "RUSTC",
        "RUSTDOC",
        "RUSTUP_TOOLCHAIN",
        "CARGO_TARGET_DIR",
    ] {
        command.env_remove(name);
    }
    command
}
