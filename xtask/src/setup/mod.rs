//! `cargo xtask setup`: finds or installs what building and testing need.

use std::{fs, path::Path, time::Instant};

use anyhow::{Result, bail};

use crate::shell;

mod apt;
mod bpf_linker;
mod cargo_deny;
pub mod cargo_fuzz;
mod node;
mod python;
mod std_source;
mod system;

/// Find or install all that building and testing need; running it again changes nothing
///
/// The kernel programs need the standard library's source, which goes into the Rust toolchain in
/// use (by rustup, else from Debian's package of the same version), and bpf-linker, which goes
/// into target/tools. The end-to-end tests need servers, clients and a browser, which come from
/// the system's packages (as root; their services are neither started nor enabled), from PyPI and
/// from npm (into target/e2e). The fuzzers need a nightly toolchain, which is only asked for.
#[derive(clap::Args)]
pub struct Args {
    /// Only what building needs: no system packages, no test tools
    #[arg(long)]
    build_only: bool,
}

pub fn run(args: &Args) -> Result<()> {
    let unmet = ensure(if args.build_only {
        Scope::Build
    } else {
        Scope::All
    });
    if unmet.is_empty() {
        println!("setup: everything is there");
        return Ok(());
    }
    bail!("setup: not to be had: {}", unmet.join(", "));
}

/// What the caller is about to do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    Build,
    /// Building and the end-to-end tests.
    Test,
    All,
}

/// Installs what is missing for building; an error if that fails.
pub fn ensure_build() -> Result<()> {
    let unmet = ensure(Scope::Build);
    if !unmet.is_empty() {
        bail!("cannot build without {}", unmet.join(", "));
    }
    Ok(())
}

/// Installs what is missing, telling each step, and returns the names of what could not be had.
pub fn ensure(scope: Scope) -> Vec<String> {
    let started = Instant::now();
    let mut unmet = Vec::new();
    let mut installed = 0;
    for part in parts(scope) {
        if (part.present)() {
            if scope == Scope::All {
                println!("  ok       {}", part.name);
            }
            continue;
        }
        println!("  install  {} ({})", part.name, part.note);
        let began = Instant::now();
        match (part.install)() {
            Ok(()) if (part.present)() => {
                installed += 1;
                println!("  done     {} in {:.1?}", part.name, began.elapsed());
            }
            Ok(()) => {
                println!("  MISSING  {}: installed, and still not usable", part.name);
                unmet.push(part.name.to_owned());
            }
            Err(error) => {
                println!("  MISSING  {}: {error:#}", part.name);
                unmet.push(part.name.to_owned());
            }
        }
    }
    if installed > 0 {
        println!("setup: {installed} installed in {:.0?}", started.elapsed());
    }
    unmet
}

/// Something that can be found or installed.
pub struct Part {
    name: &'static str,
    /// For the line that says it is being installed.
    note: &'static str,
    present: fn() -> bool,
    install: fn() -> Result<()>,
}

fn parts(scope: Scope) -> Vec<Part> {
    let mut parts = vec![std_source::PART, bpf_linker::PART];
    if scope != Scope::Build {
        parts.extend(system::PARTS);
        parts.extend([python::PART, node::PART]);
    }
    if scope == Scope::All {
        parts.push(cargo_deny::PART);
        parts.extend(cargo_fuzz::PARTS);
    }
    parts
}

/// Installs a program from crates.io into target/tools.
fn cargo_install(name: &str, version: &str) -> Result<()> {
    shell::output(
        shell::cargo()
            .args(["install", "--locked", "--force", name, "--version", version])
            .args(["--root", "target/tools"])
            // Its objects are of no use afterwards: a folder of cargo's own choice, which goes.
            .env_remove("CARGO_TARGET_DIR"),
    )?;
    Ok(())
}

/// True if both files can be read and say the same.
fn same(one: &Path, other: &Path) -> bool {
    matches!((fs::read(one), fs::read(other)), (Ok(one), Ok(other)) if one == other)
}
