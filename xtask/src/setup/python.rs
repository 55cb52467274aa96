//! The Python programs of the end-to-end tests: a virtual environment under target/e2e/venv.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context as _, Result};

use super::Part;
use crate::shell;

pub const PART: Part = Part {
    name: "Python packages",
    note: "tests/python/requirements.txt into target/e2e/venv",
    present,
    install,
};

fn present() -> bool {
    venv().join("bin/python").exists() && super::same(&requirements(), &installed())
}

fn install() -> Result<()> {
    let venv = venv();
    shell::output(
        Command::new("python3")
            .args(["-m", "venv", "--clear"])
            .arg(&venv),
    )?;
    shell::output(
        Command::new(venv.join("bin/python"))
            .args(["-m", "pip", "install", "--disable-pip-version-check"])
            .arg("--requirement")
            .arg(requirements()),
    )?;
    fs::copy(requirements(), installed()).context("cannot note what was installed")?;
    Ok(())
}

fn requirements() -> PathBuf {
    shell::root().join("tests/python/requirements.txt")
}

fn venv() -> PathBuf {
    shell::root().join("target/e2e/venv")
}

/// A copy of the requirements that the environment was made from.
fn installed() -> PathBuf {
    venv().join("requirements.txt")
}
