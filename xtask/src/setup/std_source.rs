//! The standard library's source, of the version of the toolchain in use: `core` is built from it
//! for the kernel.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use super::{Part, apt::PrivateRoot};
use crate::{
    shell,
    toolchain::{self, VERSION_FILE},
};

pub const PART: Part = Part {
    name: "standard library source",
    note: "rust-src of the toolchain in use, 45 MB",
    present: toolchain::has_std_source,
    install,
};

fn install() -> Result<()> {
    let by_rustup = shell::output(Command::new("rustup").args(["component", "add", "rust-src"]));
    if by_rustup.is_ok() {
        return Ok(());
    }
    println!("           rustup cannot fetch it; trying Debian's package of the same version");
    from_debian().context("do `rustup component add rust-src` where rustup can fetch")
}

/// Debian's newer suites have `rust-src` for most recent versions, usable with any compiler of
/// exactly that version.
fn from_debian() -> Result<()> {
    let rustc = toolchain::rustc(&["--version"]).context("rustc does not run")?;
    let version = rustc.split(' ').nth(1).context("rustc has no version")?;
    let folder = toolchain::std_source_folder().context("rustc has no sysroot")?;
    let mut tried = Vec::new();
    for suite in ["trixie-backports", "forky", "sid"] {
        match fetch(suite, version) {
            Ok((root, package)) => {
                unpack(&package, version, &folder)?;
                fs::write(folder.join(VERSION_FILE), &rustc)?;
                return root.remove();
            }
            Err(error) => tried.push(format!("{suite}: {error:#}")),
        }
    }
    bail!("none of Debian's suites gave it ({})", tried.join("; "))
}

fn fetch(suite: &str, version: &str) -> Result<(PrivateRoot, PathBuf)> {
    let root = PrivateRoot::new(suite)?;
    let package_version = root
        .version_of("rust-src", version)?
        .with_context(|| format!("no rust-src {version}"))?;
    let package = root.download("rust-src", &package_version)?;
    Ok((root, package))
}

/// Puts `library` of the package into `folder`, complete or not at all.
fn unpack(package: &Path, version: &str, folder: &Path) -> Result<()> {
    if folder.is_symlink() {
        fs::remove_file(folder)?;
    }
    let partial = folder.join("partial");
    let library = folder.join("library");
    for old in [&partial, &library] {
        if old.exists() {
            fs::remove_dir_all(old)?;
        }
    }
    fs::create_dir_all(&partial)
        .with_context(|| format!("cannot write into the toolchain ({})", partial.display()))?;

    let mut dpkg = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(package)
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start dpkg-deb")?;
    let tarfile = dpkg.stdout.take().context("dpkg-deb has no output")?;
    let tar = Command::new("tar")
        .args(["--extract", "--strip-components=5", "--directory"])
        .arg(&partial)
        .arg(format!("./usr/src/rustc-{version}/library"))
        .stdin(tarfile)
        .status()
        .context("cannot start tar")?;
    let dpkg = dpkg.wait()?;
    if !tar.success() || !dpkg.success() {
        bail!("unpacking {} failed", package.display());
    }
    fs::rename(&partial, &library)?;
    Ok(())
}
