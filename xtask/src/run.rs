//! `cargo xtask run`.

use std::{
    path::Path,
    process::{Child, Command},
};

use anyhow::{Context as _, Result, bail};

use crate::{build, shell};

/// Build wsmon, start the agent on this host and show what it sees
#[derive(clap::Args)]
pub struct Args {
    /// Start a local chat with well- and ill-behaved clients too, so that there is something to see
    #[arg(long)]
    demo: bool,
    /// Arguments for `wsmon agent`
    #[arg(last = true)]
    agent: Vec<String>,
}

pub fn run(args: &Args) -> Result<()> {
    let wsmon = build::wsmon(true)?;
    let mut agent = start(
        shell::as_root(&wsmon.to_string_lossy())?,
        "agent",
        &args.agent,
    )?;
    let demo = args
        .demo
        .then(|| start(Command::new(&wsmon), "demo", &[]))
        .transpose()?;
    let ended = watch(&wsmon, &mut agent);
    for child in demo.into_iter().chain([agent]) {
        stop(child);
    }
    ended
}

/// What the terminal shows while the agent runs, until it ends or the user has seen enough.
fn watch(_wsmon: &Path, agent: &mut Child) -> Result<()> {
    println!("run: metrics at http://127.0.0.1:9790/metrics; Ctrl-C ends");
    let status = agent.wait().context("cannot wait for the agent")?;
    if !status.success() {
        bail!("`wsmon agent` failed ({status}); its message is above");
    }
    Ok(())
}

fn start(mut wsmon: Command, command: &str, args: &[String]) -> Result<Child> {
    wsmon
        .arg(command)
        .args(args)
        .spawn()
        .with_context(|| format!("cannot start `wsmon {command}`"))
}

/// Ends a child that is still there. Ctrl-C has reached it already: it shares the terminal.
fn stop(mut child: Child) {
    drop(child.kill());
    drop(child.wait());
}
