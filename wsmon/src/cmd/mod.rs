//! The commands. Data goes to stdout, logs to stderr; 0 is done, 1 failed, 2 wrong usage.

mod agent;
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
  sudo wsmon agent                    watch this host; metrics at http://127.0.0.1:9790/metrics
  wsmon top                           the connections, live
  wsmon trace --port 8080             handshakes, frames and closes as they happen
  wsmon ls --output json              the open connections, for a script
  sudo wsmon doctor                   what this kernel grants, and what is missing
  wsmon demo                          something to look at on an idle machine

Exit codes: 0 done, 1 failed, 2 wrong usage. Data go to stdout, logs to stderr.
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
    Agent(agent::Agent),
    Trace(trace::Trace),
    Ls(ls::Ls),
    Top(top::Top),
    Doctor(doctor::Doctor),
    Demo(demo::Demo),
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
                Command::Agent(agent) => agent.run().await?,
                Command::Trace(trace) => trace.run().await?,
                Command::Ls(ls) => ls.run().await?,
                Command::Top(top) => top.run().await?,
                Command::Doctor(doctor) => return doctor.run(),
                Command::Demo(demo) => demo.run().await?,
            }
            Ok(ExitCode::SUCCESS)
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_that_the_readme_names_is_understood() {
        let readme = include_str!("../../../README.md");
        let named = readme
            .lines()
            .filter_map(|line| line.strip_prefix("$ "))
            .chain(readme.split('`').skip(1).step_by(2))
            .map(|command| command.strip_prefix("sudo ").unwrap_or(command))
            .filter(|command| command.starts_with("wsmon "));
        let mut count = 0;
        for command in named {
            if let Err(error) = Cli::try_parse_from(command.split_whitespace()) {
                panic!("`{command}`: {error}");
            }
            count += 1;
        }
        assert!(count >= 10, "only {count} commands found");
    }

    #[test]
    fn every_command_shows_examples() {
        for command in Cli::command().get_subcommands() {
            let help = command
                .get_after_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            assert!(help.contains("Examples:"), "{}", command.get_name());
        }
    }
}
