//! What wsmon's kernel programs cost, in nanoseconds above an empty program that runs at the same
//! hook for the same packets. See docs/BENCHMARKS.md; `cargo xtask bench` runs it.

mod cgroup;
mod floor;
mod report;
mod traffic;

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use aya::sys::{Stats, enable_stats};
use clap::Parser;
use wsmon::kernel::{Kernel, Options, bpf::RunStats};

use self::{
    cgroup::Cgroup,
    floor::Floor,
    report::Sample,
    traffic::{Inside, Load, Pair, Pattern},
};

/// Measure what wsmon's kernel programs cost for each packet and socket call
#[derive(Parser)]
struct Cli {
    /// Rounds; the table shows their medians
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Sends in a round of each stream; ping-pong has a fifth of them, there and back
    #[arg(long, default_value_t = 100_000)]
    packets: u64,
    /// Set by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// Hooks at which a program of wsmon and an empty one are compared, by the name of wsmon's.
const HOOKS: [&str; 4] = [
    "packet_egress",
    "packet_ingress",
    "process_send",
    "process_receive",
];

/// Traffic that is measured by itself.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Scenario {
    load: Load,
    pattern: Pattern,
    inside: Inside,
}

const fn scenario(load: Load, pattern: Pattern, inside: Inside) -> Scenario {
    Scenario {
        load,
        pattern,
        inside,
    }
}

const SCENARIOS: [Scenario; 14] = {
    use self::{
        Inside::{Client, Server},
        Load::{Frames, Http, LargeFrame, Other},
        Pattern::{PingPong, Stream},
    };
    [
        scenario(Frames(1), Stream, Client),
        scenario(Frames(1), Stream, Server),
        scenario(Frames(64), Stream, Client),
        scenario(Frames(64), Stream, Server),
        scenario(Frames(1), PingPong, Client),
        scenario(Frames(1), PingPong, Server),
        scenario(LargeFrame, Stream, Client),
        scenario(LargeFrame, Stream, Server),
        scenario(Other, Stream, Client),
        scenario(Other, Stream, Server),
        scenario(Other, PingPong, Client),
        scenario(Other, PingPong, Server),
        scenario(Http, PingPong, Client),
        scenario(Http, PingPong, Server),
    ]
};

/// What was measured: for each scenario and hook, a sample a round.
type Samples = BTreeMap<(Scenario, &'static str), Vec<Sample>>;

fn main() -> Result<()> {
    let cli = Cli::parse();
    let cgroup = Cgroup::new()?;
    let options = Options {
        cgroup: Some(cgroup.path().to_owned()),
        slots: 1024,
        ..Options::default()
    };
    let (kernel, _events) = Kernel::load(&options)?;
    let floor = Floor::attach(&cgroup, kernel.has_process_hook)?;
    // On until it is dropped, whatever the host's own setting is.
    let _stats = enable_stats(Stats::RunTime).context("cannot have run time statistics")?;

    let mut pairs = Vec::new();
    for scenario in SCENARIOS {
        pairs.push((
            scenario,
            Pair::open(&cgroup, scenario.inside, scenario.load)?,
        ));
    }
    let (mut samples, mut others) = (Samples::new(), 0);
    // Not counted: caches, the window and the kernel's estimates of both ends grow warm.
    for (scenario, pair) in &mut pairs {
        pair.run(scenario.load, scenario.pattern, cli.packets / 20 + 64)?;
    }
    for round in 0..cli.rounds {
        others = others.max(floor.others()?);
        eprint!("\rbench: round {} of {}", round + 1, cli.rounds);
        for (scenario, pair) in &mut pairs {
            let sends = match scenario.pattern {
                Pattern::Stream => cli.packets,
                Pattern::PingPong => cli.packets / 5,
            };
            let before = Reading::take(&kernel, &floor)?;
            pair.run(scenario.load, scenario.pattern, sends)?;
            let after = Reading::take(&kernel, &floor)?;
            for hook in HOOKS {
                if let Some(sample) = after.since(&before, hook) {
                    samples.entry((*scenario, hook)).or_default().push(sample);
                }
            }
        }
    }
    eprintln!();
    if others > 0 {
        println!(
            "TOO GOOD: {others} other programs ran for the same packets (another wsmon?) and \
             brought them into the cache.\n"
        );
    }
    print!("{}", report::markdown(&samples, cli.rounds, cli.packets)?);
    Ok(())
}

/// Everything that counts, at one time.
struct Reading {
    wsmon: BTreeMap<String, RunStats>,
    floor: BTreeMap<&'static str, RunStats>,
    frames_sent: u64,
    frames_received: u64,
}

impl Reading {
    fn take(kernel: &Kernel, floor: &Floor) -> Result<Self> {
        let slots = || (0..kernel.slots()).filter_map(|index| kernel.slot(index));
        let stats = kernel.program_stats()?;
        Ok(Self {
            wsmon: stats
                .into_iter()
                .map(|(name, stats)| (name.to_owned(), stats))
                .collect(),
            floor: floor.stats()?,
            frames_sent: slots().flat_map(|slot| slot.sent.frames).sum(),
            frames_received: slots().flat_map(|slot| slot.received.frames).sum(),
        })
    }

    /// What passed a hook since then. `None` if it was not used, or is not there.
    fn since(&self, before: &Self, hook: &'static str) -> Option<Sample> {
        let mean = |now: &RunStats, then: &RunStats| {
            let runs = now.runs - then.runs;
            (runs > 0).then(|| now.time.saturating_sub(then.time).as_nanos() as f64 / runs as f64)
        };
        let (now, then) = (self.wsmon.get(hook)?, before.wsmon.get(hook)?);
        let frames = match hook {
            "packet_egress" => self.frames_sent - before.frames_sent,
            "packet_ingress" => self.frames_received - before.frames_received,
            _ => 0,
        };
        Some(Sample {
            wsmon: mean(now, then)?,
            floor: mean(self.floor.get(hook)?, before.floor.get(hook)?)?,
            frames: frames as f64 / (now.runs - then.runs) as f64,
        })
    }
}
