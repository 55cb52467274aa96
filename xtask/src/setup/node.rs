//! The Node programs of the end-to-end tests: `node_modules` under target/e2e/node.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context as _, Result};

use super::Part;
use crate::shell;

pub const PART: Part = Part {
    name: "Node packages",
    note: "tests/node/package-lock.json into target/e2e/node",
    present,
    install,
};

fn present() -> bool {
    // npm writes this file last.
    folder().join("node_modules/.package-lock.json").exists()
        && MANIFESTS
            .iter()
            .all(|file| super::same(&manifests().join(file), &folder().join(file)))
}

fn install() -> Result<()> {
    fs::create_dir_all(folder())?;
    for file in MANIFESTS {
        fs::copy(manifests().join(file), folder().join(file))
            .with_context(|| format!("cannot copy tests/node/{file}"))?;
    }
    shell::output(
        Command::new("npm")
            .args(["ci", "--no-audit", "--no-fund"])
            .current_dir(folder()),
    )?;
    Ok(())
}

const MANIFESTS: [&str; 2] = ["package.json", "package-lock.json"];

fn manifests() -> PathBuf {
    shell::root().join("tests/node")
}

fn folder() -> PathBuf {
    shell::root().join("target/e2e/node")
}
