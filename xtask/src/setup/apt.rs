//! Debian's packages: into the system, or fetched through a private apt root that leaves the
//! system's own apt alone.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Once,
};

use anyhow::{Context as _, Result, bail};

use crate::shell;

/// The lists of packages are fetched once a run, and only if something must be installed.
static UPDATE: Once = Once::new();

/// Installs packages into the system, as root. Their services are neither started nor enabled.
pub fn install(packages: &[&str], services: &[&str]) -> Result<()> {
    if shell::find("apt-get").is_none() {
        bail!(
            "there is no apt-get here: install {} by this system's own means",
            packages.join(" ")
        );
    }
    let mut updated = Ok(());
    UPDATE.call_once(|| updated = update());
    updated?;

    let _policy = NoServiceStarts::new()?;
    shell::output(
        shell::as_root("env")?
            .args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "install"])
            .args(["--yes", "--quiet", "--no-install-recommends"])
            .args(packages),
    )?;
    if shell::find("systemctl").is_some() {
        for service in services {
            shell::output(shell::as_root("systemctl")?.args(["disable", service]))?;
        }
    }
    Ok(())
}

fn update() -> Result<()> {
    shell::output(shell::as_root("apt-get")?.args(["update", "--quiet"])).map(drop)
}

/// While this lives, packages that are installed do not start their services.
struct NoServiceStarts {
    written: bool,
}

impl NoServiceStarts {
    const FILE: &str = "/usr/sbin/policy-rc.d";

    fn new() -> Result<Self> {
        // A policy that is there already is the administrator's.
        if Path::new(Self::FILE).exists() {
            return Ok(Self { written: false });
        }
        let script = format!(
            "printf '#!/bin/sh\\nexit 101\\n' >{0} && chmod 755 {0}",
            Self::FILE
        );
        shell::output(shell::as_root("sh")?.args(["-c", &script]))?;
        Ok(Self { written: true })
    }
}

impl Drop for NoServiceStarts {
    fn drop(&mut self) {
        if self.written {
            let removed = shell::as_root("rm").map(|mut rm| shell::run(rm.arg(Self::FILE)));
            if !matches!(removed, Ok(Ok(()))) {
                eprintln!("setup: please remove {}", Self::FILE);
            }
        }
    }
}

/// An apt that knows one suite of Debian and keeps its state under target/apt, with the system's
/// own mirror, keyring and proxy.
pub struct PrivateRoot {
    folder: PathBuf,
}

impl PrivateRoot {
    /// Fetches the suite's list of packages.
    pub fn new(suite: &str) -> Result<Self> {
        let folder = shell::root().join("target/apt").join(suite);
        fs::create_dir_all(folder.join("lists/partial"))?;
        fs::create_dir_all(folder.join("cache/archives/partial"))?;
        let keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
        let signed_by = if Path::new(keyring).exists() {
            format!("[signed-by={keyring}] ")
        } else {
            String::new()
        };
        let source = format!("deb {signed_by}{} {suite} main\n", debian_mirror()?);
        fs::write(folder.join("sources.list"), source)?;
        let root = Self { folder };
        shell::output(root.apt("apt-get").arg("update"))?;
        Ok(root)
    }

    /// The newest package version of this upstream version.
    pub fn version_of(&self, package: &str, upstream: &str) -> Result<Option<String>> {
        let table = shell::output(self.apt("apt-cache").args(["madison", package]))?;
        Ok(table
            .lines()
            .filter_map(|line| line.split('|').nth(1))
            .map(str::trim)
            .find(|version| {
                version
                    .strip_prefix(upstream)
                    .is_some_and(|rest| rest.starts_with(['+', '-', '~']))
            })
            .map(str::to_owned))
    }

    /// Downloads a package and returns its file.
    pub fn download(&self, package: &str, version: &str) -> Result<PathBuf> {
        let wanted = format!("{package}={version}");
        shell::output(self.apt("apt-get").args(["download", &wanted]))?;
        fs::read_dir(&self.folder)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|file| file.extension().is_some_and(|extension| extension == "deb"))
            .with_context(|| format!("apt-get downloaded no file for {wanted}"))
    }

    /// Gives the space back.
    pub fn remove(self) -> Result<()> {
        Ok(fs::remove_dir_all(&self.folder)?)
    }

    fn apt(&self, program: &str) -> Command {
        let mut apt = Command::new(program);
        apt.current_dir(&self.folder);
        for (option, value) in [
            ("Dir::Etc::sourcelist", "sources.list"),
            ("Dir::State::lists", "lists"),
            ("Dir::Cache", "cache"),
        ] {
            let path = self.folder.join(value);
            apt.arg("-o").arg(format!("{option}={}", path.display()));
        }
        apt.args(["-o", "Dir::Etc::sourceparts=-"])
            .args(["-o", "Dir::State::status=/dev/null"])
            // The folder may lie where apt's own user cannot read.
            .args(["-o", "APT::Sandbox::User=root"]);
        apt
    }
}

/// Where this system's own apt gets Debian from.
fn debian_mirror() -> Result<String> {
    let sources = shell::output(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(REPO_URI)",
        "Created-By: Packages",
    ]))?;
    sources
        .lines()
        .find(|uri| uri.trim_end_matches('/').ends_with("/debian"))
        .map(str::to_owned)
        .context("this system's apt has no mirror of Debian")
}
