//! Everything a contributor runs.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bench;
mod build;
mod fuzz;
mod lint;
mod run;
mod setup;
mod shell;
mod test;
/// What the kernel programs need, told once for the build script and for setup.
#[path = "../../wsmon/build/toolchain.rs"]
mod toolchain;

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Setup(args) => setup::run(&args),
        Command::Build(args) => build::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Lint(args) => lint::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Bench(args) => bench::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Set up, build, run, test and measure wsmon.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Setup(setup::Args),
    Build(build::Args),
    Run(run::Args),
    Test(test::Args),
    Lint(lint::Args),
    Fuzz(fuzz::Args),
    Bench(bench::Args),
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
    fn every_task_that_the_readme_names_is_understood() {
        let readme = include_str!("../../README.md");
        let mut count = 0;
        let spans = readme.split('`').skip(1).step_by(2);
        let lines = readme.lines().filter_map(|line| line.strip_prefix("$ "));
        for task in lines.chain(spans) {
            let Some(task) = task.strip_prefix("cargo xtask ") else {
                continue;
            };
            let words = ["xtask"].into_iter().chain(task.split_whitespace());
            if let Err(error) = Cli::try_parse_from(words) {
                panic!("`cargo xtask {task}`: {error}");
            }
            count += 1;
        }
        assert!(count >= 3, "only {count} tasks found");
    }
}
