//! `wsmon doctor`: what this host grants, tried for real, and what follows from it.

mod bpf;
mod host;
mod probe;
mod report;

use std::{fs::File, io::Write as _, process::ExitCode};

use clap::{Args, ValueEnum};

use wsmon::kernel::{self, Kernel};

use self::report::{Report, Tap};
use crate::output::{self, escape_json};

const EXAMPLES: &str = "\
Exit code: 0 if a tap works, 1 if none does.

Examples:
  sudo wsmon doctor
  wsmon doctor                        also without root: says what is missing
  sudo wsmon doctor --output json | jq .tap
";

/// Find out what this kernel grants, and which tap would be used.
///
/// Each kind of program is loaded, and attached for a moment; none of them changes anything.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Doctor {
    /// How to write it.
    #[arg(long, short, value_enum, default_value_t = Format::Text)]
    output: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Text,
    Json,
}

impl Doctor {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let host = host::examine();
        let capable = host.missing_capabilities.is_empty();
        let cgroup = host.cgroup_root.as_ref().or(host.cgroup_mounts.first());
        let cgroup = cgroup.and_then(|path| File::open(path).ok());
        let programs = probe::programs(cgroup.as_ref(), capable);
        let report = Report::new(host, programs, probe::maps(capable), try_tap());

        let mut out = output::stdout();
        match self.output {
            Format::Text => report.write(&mut out)?,
            Format::Json => {
                let json = serde_json::to_string_pretty(&report)?;
                writeln!(out, "{}", escape_json(&json))?;
            }
        }
        out.flush()?;
        Ok(if report.works() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}

/// Loads and attaches the tap as the agent does, with little memory, and lets go of it.
fn try_tap() -> Tap {
    let options = kernel::Options {
        slots: 16,
        ring_bytes: 64 << 10,
        buffers: 4,
        ..kernel::Options::default()
    };
    let tried = Kernel::load(&options);
    Tap::tried(match tried {
        Ok((kernel, _)) => Ok(kernel.has_process_hook),
        Err(error) => Err(error.to_string()),
    })
}
