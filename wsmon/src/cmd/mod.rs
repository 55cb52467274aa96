//! The commands. Data goes to stdout, logs to stderr; 0 is done, 1 failed, 2 wrong usage.

mod api;
mod args;
mod demo;
mod doctor;
#[cfg(test)]
mod example;
mod ls;
mod stop;
mod top;
mod trace;

use std::{io::IsTerminal as _, process::ExitCode};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

const EXAMPLES: &str = "\
Examples:
  wsmon demo                          something to look at on an idle machine
";

/// Watches every WebSocket on this host from the kernel, without touching servers or clients.
#[derive(Debug, Parser)]
#[command(
    name = "wsmon",
    version,
    after_help = EXAMPLES,
    propagate_version = true,
    disable_help_subcommand = true
)]
pub struct Cli {
    /// What to log to stderr: a level, or a filter such as `info,wsmon::kernel=debug`.
    /// RUST_LOG is used if this is not given.
    #[arg(long, global = true, value_name = "FILTER", env = "WSMON_LOG_LEVEL")]
    log_level: Option<String>,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Trace(trace::Trace),
    Ls(ls::Ls),
    Top(top::Top),
    Demo(demo::Demo),
    Doctor(doctor::Doctor),
}

impl Cli {
    /// Runs the command to its end.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        start_logs(self.log_level.as_deref())?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .context("cannot start the async runtime")?;
        let result = runtime.block_on(async {
            match self.command {
                Command::Trace(trace) => trace.run().await.map(|()| ExitCode::SUCCESS),
                Command::Ls(ls) => ls.run().await.map(|()| ExitCode::SUCCESS),
                Command::Top(top) => top.run().await.map(|()| ExitCode::SUCCESS),
                Command::Doctor(doctor) => doctor.run(),
                Command::Demo(demo) => demo.run().await.map(|()| ExitCode::SUCCESS),
            }
        });
        // A task that still blocks, on a name look-up say, must not hold the exit up.
        runtime.shutdown_background();
        result
    }
}

fn start_logs(level: Option<&str>) -> anyhow::Result<()> {
    let filter = match level {
        Some(level) => EnvFilter::try_new(level)
            .with_context(|| format!("`{level}` is not a level or filter for --log-level"))?,
        None => EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info")),
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .init();
    Ok(())
}
