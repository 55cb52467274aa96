//! Builds the kernel programs (wsmon-ebpf) and hands the object's path to the crate as
//! `WSMON_EBPF_OBJECT`.

mod toolchain;

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};

/// Where [`toolchain::cargo`] puts the object.
const OBJECT: &str = "target/ebpf/bpfel-unknown-none/ebpf/wsmon-ebpf";

fn main() -> anyhow::Result<()> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?)
        .parent()
        .context("the package has no parent folder")?
        .to_owned();
    for input in ["wsmon-ebpf", "wsmon-common", "Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", root.join(input).display());
    }
    println!("cargo::rerun-if-changed=build");

    let missing = missing(&root);
    if !missing.is_empty() {
        println!(
            "cargo::error=run `cargo xtask setup` first: the kernel programs cannot be built without {}",
            missing.join(" and ")
        );
        return Ok(());
    }

    let arch = env::var("CARGO_CFG_TARGET_ARCH")?;
    let mut cargo = toolchain::cargo(&root, &arch, "build");
    let status = cargo
        .status()
        .with_context(|| format!("cannot start {cargo:?}"))?;
    if !status.success() {
        bail!("building wsmon-ebpf failed ({status}); the compiler's message is above");
    }
    println!(
        "cargo::rustc-env=WSMON_EBPF_OBJECT={}",
        root.join(OBJECT).display()
    );
    Ok(())
}

/// The parts that `cargo xtask setup` installs and that are not there, in words.
fn missing(root: &Path) -> Vec<String> {
    let mut missing = Vec::new();
    if !toolchain::has_std_source() {
        missing.push("the standard library's source of the Rust toolchain in use".to_owned());
    }
    let linker = toolchain::bpf_linker(root);
    if !linker.exists() {
        missing.push(format!("bpf-linker ({})", linker.display()));
    }
    missing
}
