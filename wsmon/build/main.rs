//! Builds the kernel programs (wsmon-ebpf) and hands the object's path to the crate as
//! `WSMON_EBPF_OBJECT`.

mod toolchain;

use std::{env, path::PathBuf};

use anyhow::{Context as _, bail};

fn main() -> anyhow::Result<()> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?)
        .parent()
        .context("the package has no parent folder")?
        .to_owned();
    for input in ["wsmon-ebpf", "wsmon-common", "Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", root.join(input).display());
    }
    println!("cargo::rerun-if-changed=build");

    let missing = toolchain::missing(&root);
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
        toolchain::object(&root).display()
    );
    Ok(())
}
