//! `cargo xtask test`.

use std::time::Duration;

use anyhow::{Result, bail};

use crate::{
    build, fuzz,
    setup::{self, Scope},
    shell,
};

mod tally;

use tally::Tally;

/// Run all tests: unit and property tests, fuzzers, then end to end with real servers and kernel
///
/// Installs what is missing first (as `cargo xtask setup` does). Tests that cannot run here are
/// skipped aloud, with the reason.
#[derive(clap::Args)]
pub struct Args {
    /// Only the tests inside the crates, not those under tests/
    #[arg(long, conflicts_with = "e2e")]
    unit: bool,
    /// Only the end-to-end tests under tests/
    #[arg(long)]
    e2e: bool,
    /// Test the optimised program end to end
    #[arg(long)]
    release: bool,
    /// Only tests whose name contains this
    filter: Option<String>,
}

pub fn run(args: &Args) -> Result<()> {
    setup::ensure_build()?;
    let mut tally = Tally::default();
    if !args.e2e {
        let mut cargo = shell::cargo();
        cargo.args(["test", "--workspace", "--exclude", "wsmon-e2e"]);
        tally.add("unit and property tests", cargo, args.filter.as_deref())?;
        if args.filter.is_none() {
            fuzzers(&mut tally);
        }
    }
    if !args.unit {
        end_to_end(args, &mut tally)?;
    }
    tally.sum_up();
    if tally.failed > 0 {
        bail!("test: {} failed", tally.failed);
    }
    Ok(())
}

/// How long each fuzzer runs.
const FUZZED: Duration = Duration::from_secs(10);

fn fuzzers(tally: &mut Tally) {
    if let Some(reason) = fuzz::obstacle() {
        for target in fuzz::TARGETS {
            tally.skip(&format!("fuzz {target}"), reason);
        }
    } else if let Err(error) = fuzz::build() {
        tally.judge("building the fuzzers", Err(error));
    } else {
        for target in fuzz::TARGETS {
            tally.judge(&format!("fuzz {target}"), fuzz::fuzz(target, Some(FUZZED)));
        }
    }
}

fn end_to_end(args: &Args, tally: &mut Tally) -> Result<()> {
    for part in setup::ensure(Scope::Test) {
        println!("test: {part} is missing: the tests that need it will be skipped");
    }
    let wsmon = build::wsmon(args.release)?;
    let target = shell::root().join("target/e2e");
    let mut cargo = shell::cargo();
    cargo
        .args(["test", "--package", "wsmon-e2e"])
        .env("WSMON_BIN", wsmon)
        .env("WSMON_E2E_PYTHON", target.join("venv/bin/python"))
        .env("WSMON_E2E_NODE_PATH", target.join("node/node_modules"));
    tally.add("end to end", cargo, args.filter.as_deref())
}
