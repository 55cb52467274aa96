//! bpf-linker, which makes one eBPF object of LLVM bitcode.

use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::Part;
use crate::{shell, toolchain};

pub const PART: Part = Part {
    name: "bpf-linker",
    note: "into target/tools, about a minute",
    present,
    install,
};

/// Its default features borrow the LLVM that rustc itself brings, whose major version must be
/// [`LLVM`].
const VERSION: &str = "0.10.3";
const LLVM: &str = "22";

fn present() -> bool {
    let linker = toolchain::bpf_linker(shell::root());
    shell::output(Command::new(linker).arg("--version"))
        .is_ok_and(|answer| answer.trim().ends_with(VERSION))
}

fn install() -> Result<()> {
    let about = toolchain::rustc(&["--version", "--verbose"]).context("rustc does not run")?;
    let llvm = about
        .lines()
        .find_map(|line| line.strip_prefix("LLVM version: "))
        .and_then(|version| version.split('.').next())
        .unwrap_or("unknown");
    if llvm != LLVM {
        bail!(
            "bpf-linker {VERSION} goes with LLVM {LLVM}, and the rustc in use has LLVM {llvm}: \
             use Rust 1.95"
        );
    }
    super::cargo_install("bpf-linker", VERSION)
}
