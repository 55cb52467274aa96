//! `cargo xtask fuzz`.

use std::{
    fs,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::{setup::cargo_fuzz, shell};

/// Run the fuzzers on hostile input: frames, handshakes, records of the kernel
///
/// They start from fuzz/seeds and keep what they learn under target/fuzz. Needs a nightly
/// toolchain beside the one in use (`rustup toolchain install nightly --profile minimal`) and
/// cargo-fuzz, which `cargo xtask setup` installs.
#[derive(clap::Args)]
pub struct Args {
    /// A minute for each
    #[arg(long, conflicts_with = "seconds")]
    smoke: bool,
    /// How long each runs; without it, and without --smoke, until Ctrl-C
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    /// Only this one: stream, heads, records
    #[arg(value_parser = TARGETS)]
    target: Option<String>,
}

/// What the fuzzers are called, and their seeds' folders.
pub const TARGETS: [&str; 3] = ["stream", "heads", "records"];

/// How long a smoke test of one takes.
const SMOKE: Duration = Duration::from_mins(1);
/// The longest input that is tried.
const MAX_LEN: usize = 4096;

pub fn run(args: &Args) -> Result<()> {
    let time = if args.smoke {
        Some(SMOKE)
    } else {
        args.seconds.map(Duration::from_secs)
    };
    let targets: Vec<&str> = match &args.target {
        Some(target) => vec![target],
        None => TARGETS.to_vec(),
    };
    if time.is_none() && targets.len() > 1 {
        bail!("say which target is to run until Ctrl-C, or how long: --smoke, --seconds N");
    }
    if !cargo_fuzz::has_tool() {
        cargo_fuzz::install()?;
    }
    if let Some(obstacle) = obstacle() {
        bail!("{obstacle} ({})", cargo_fuzz::HOW_TO_GET_NIGHTLY);
    }
    build()?;
    let mut failed = Vec::new();
    for target in targets {
        if let Err(error) = fuzz(target, time) {
            eprintln!("fuzz: {error:#}");
            failed.push(target);
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    bail!("fuzz: failed: {}", failed.join(", "));
}

/// Why the fuzzers cannot run here.
pub fn obstacle() -> Option<&'static str> {
    if !cargo_fuzz::has_tool() {
        Some("cargo-fuzz is not installed")
    } else if !cargo_fuzz::has_nightly() {
        Some("there is no nightly toolchain")
    } else if shell::find("c++").is_none() {
        Some("there is no C++ compiler, for libFuzzer")
    } else {
        None
    }
}

/// Builds all of them.
pub fn build() -> Result<()> {
    println!("fuzz: building");
    shell::run(&mut cargo_fuzz::command("build")?)
}

/// Runs one that is built; an error if it finds an input that breaks what must hold.
pub fn fuzz(target: &str, time: Option<Duration>) -> Result<()> {
    println!("fuzz: {target}");
    let folder = cargo_fuzz::target_folder();
    let corpus = folder.join("corpus").join(target);
    // With a slash at its end it is a folder to libFuzzer.
    let found = folder.join("found").join(target).join("");
    for folder in [&corpus, &found] {
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let began = Instant::now();
    let mut fuzzer = Command::new(program(target)?);
    fuzzer
        .current_dir(shell::root())
        .arg(corpus)
        .arg(shell::root().join("fuzz/seeds").join(target))
        .arg(format!("-artifact_prefix={}", found.display()))
        .arg(format!("-max_len={MAX_LEN}"))
        // A line at the start and at the end, and one for each find.
        .args(["-verbosity=1", "-print_final_stats=1", "-reload=0"])
        .args(time.map(|time| format!("-max_total_time={}", time.as_secs())));
    if time.is_some() {
        let said = said(&mut fuzzer, target, &found)?;
        println!(
            "fuzz: {target}: {said} in {:.0?}, nothing found",
            began.elapsed()
        );
        return Ok(());
    }
    shell::run(&mut fuzzer)
}

/// Runs to the end in silence; how many inputs it tried.
fn said(fuzzer: &mut Command, target: &str, found: &std::path::Path) -> Result<String> {
    let output = fuzzer
        .output()
        .with_context(|| format!("cannot start {target}"))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        let lines: Vec<&str> = stderr.lines().collect();
        let last = lines[lines.len().saturating_sub(40)..].join("\n    ");
        bail!(
            "{target} ended with {}; what broke it is under {}:\n    {last}",
            output.status,
            found.display()
        );
    }
    let runs = stderr
        .lines()
        .find_map(|line| line.strip_prefix("stat::number_of_executed_units:"))
        .map_or("an unknown number of", str::trim);
    Ok(format!("{runs} inputs"))
}

/// Where cargo-fuzz put it.
fn program(target: &str) -> Result<PathBuf> {
    let host = cargo_fuzz::host().context("rustc does not name its host")?;
    Ok(cargo_fuzz::target_folder()
        .join(host)
        .join("release")
        .join(target))
}
