//! `wsmon trace`: what happens, as it happens.

mod cgroup;
mod line;
mod local;
mod rate;
mod select;

use std::{collections::VecDeque, io::Write, pin::pin, time::Duration};

use anyhow::bail;
use clap::{Args, ValueEnum};
use futures_util::{
    Stream, StreamExt as _, TryStreamExt as _,
    stream::{self, BoxStream},
};
use tokio::time::{Instant, sleep_until};
use wsmon::model::view::{TraceRecord, Traced};

use self::{
    cgroup::{Cgroup, Members},
    line::Lines,
    rate::Rate,
    select::Selection,
};
use super::{
    api::{Agent, ApiError},
    args::{AgentAddress, FilterFlags, period},
    stop::Stop,
};
use crate::output::{self, escape_json};

/// Lines per second on a terminal: more than that nobody reads.
const TERMINAL_RATE: u64 = 1000;

const EXAMPLES: &str = "\
Examples:
  wsmon trace --port 8080
  wsmon trace --pid 4711 --only handshake,end --for 10m
  wsmon trace --only ping,pong                   heartbeats and their round trips
  wsmon trace --code 1006 --count 20             the next twenty that break off
  wsmon trace --path '/chat*' --output json | jq .
";

/// Stream what happens on WebSockets: handshakes, frames, pings, closes.
///
/// Through the running agent where there is one. Payload is never shown.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Trace {
    #[command(flatten)]
    agent: AgentAddress,

    #[command(flatten)]
    filter: FilterFlags,

    #[command(flatten)]
    selection: Selection,

    /// Only processes in this cgroup or below: `/system.slice/nginx.service`, or its folder under
    /// /sys/fs/cgroup.
    #[arg(long, value_name = "PATH")]
    cgroup: Option<Cgroup>,

    /// Stop after this time: 30s, 5m, 1h30m.
    #[arg(long = "for", value_name = "DURATION", value_parser = period)]
    duration: Option<Duration>,

    /// Stop after so many lines.
    #[arg(long, value_name = "N")]
    count: Option<u64>,

    /// Lines per second at most; what is over is counted and said. 0: no limit [default: 1000 on
    /// a terminal, else no limit]
    #[arg(long, value_name = "N")]
    max_rate: Option<u64>,

    /// Show the reason text of Close frames, which applications choose freely.
    #[arg(long)]
    show_reasons: bool,

    /// How to write them.
    #[arg(long, short, value_enum, default_value_t = Format::Human)]
    output: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum Format {
    /// One aligned line each.
    Human,
    /// One JSON object a line.
    Json,
}

impl Trace {
    pub async fn run(self) -> anyhow::Result<()> {
        let mut stop = Stop::listen()?;
        let end = self.duration.map(|duration| Instant::now() + duration);
        let mut over = Box::pin(async move {
            tokio::select! {
                () = stop.requested() => {}
                () = until(end) => {}
            }
        });
        let records = tokio::select! {
            records = self.records() => records?,
            () = &mut over => return Ok(()),
        };
        self.print(records.take_until(over), &mut output::stdout())
            .await
    }

    /// From the agent if one answers, else from this process.
    async fn records(&self) -> anyhow::Result<BoxStream<'static, anyhow::Result<TraceRecord>>> {
        let mut filter = self.filter.filter();
        self.selection.narrow(&mut filter);
        match Agent::at(&self.agent)?
            .trace(&filter, self.show_reasons)
            .await
        {
            Ok(records) => {
                let ended = stream::once(async { bail!("the agent ended the trace") });
                Ok(records.map_err(anyhow::Error::from).chain(ended).boxed())
            }
            Err(nobody @ ApiError::NoAnswer { .. }) => {
                tracing::debug!("{nobody}");
                let records = local::trace(filter, self.show_reasons)
                    .await
                    .map_err(|error| error.context(nobody.to_string()))?;
                Ok(records.map(Ok).boxed())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Prints what was asked for until `--count` is reached or the stream ends.
    async fn print(
        &self,
        records: impl Stream<Item = anyhow::Result<TraceRecord>>,
        out: &mut impl Write,
    ) -> anyhow::Result<()> {
        let mut records = pin!(records.ready_chunks(256));
        let mut printer = Printer::new(self);
        let mut members = self.cgroup.clone().map(Members::of);
        let mut rate = Rate::new(match self.max_rate {
            Some(rate) => rate,
            None if output::on_terminal() => TERMINAL_RATE,
            None => 0,
        });
        let mut left = self.count.unwrap_or(u64::MAX);
        while left > 0 {
            let ready = tokio::select! {
                ready = records.next() => ready,
                () = until(rate.window_end().map(Instant::from_std)) => Some(Vec::new()),
            };
            let Some(ready) = ready else {
                break;
            };
            let mut ready = VecDeque::from(ready);
            loop {
                if let Some(lines) = rate.left_out(std::time::Instant::now()) {
                    printer.print(out, &left_out(lines))?;
                }
                let Some(record) = ready.pop_front() else {
                    break;
                };
                let mut record = record?;
                if matches!(record.what, Traced::Dropped { .. }) {
                    printer.print(out, &record)?;
                    continue;
                }
                if !self.selection.wants(&record.what)
                    || !members
                        .as_mut()
                        .is_none_or(|members| record.pid.is_some_and(|pid| members.has(pid)))
                    || !rate.admits(std::time::Instant::now())
                {
                    continue;
                }
                if !self.show_reasons {
                    hide_reason(&mut record);
                }
                printer.print(out, &record)?;
                left -= 1;
                if left == 0 {
                    break;
                }
            }
            out.flush()?;
        }
        if let Some(lines) = rate.rest() {
            printer.print(out, &left_out(lines))?;
        }
        out.flush()?;
        Ok(())
    }
}

struct Printer {
    format: Format,
    lines: Lines,
}

impl Printer {
    fn new(trace: &Trace) -> Self {
        Self {
            format: trace.output,
            lines: Lines::new(output::in_colour()),
        }
    }

    fn print(&mut self, out: &mut impl Write, record: &TraceRecord) -> anyhow::Result<()> {
        match self.format {
            Format::Human => writeln!(out, "{}", self.lines.line(record))?,
            Format::Json => writeln!(out, "{}", escape_json(&serde_json::to_string(record)?))?,
        }
        Ok(())
    }
}

/// Says in the stream that lines are missing from it.
fn left_out(lines: u64) -> TraceRecord {
    TraceRecord::dropped(format!("{:.6}", jiff::Timestamp::now()), lines)
}

fn hide_reason(record: &mut TraceRecord) {
    if let Traced::Frame { reason, .. } | Traced::Close { reason, .. } = &mut record.what {
        *reason = None;
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cmd::example;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        trace: Trace,
    }

    async fn traced(flags: &[&str], records: Vec<Traced>) -> String {
        let line = Line::parse_from(["trace"].iter().chain(flags));
        let records = records.into_iter().map(|what| Ok(example::record(what)));
        let mut out = Vec::new();
        line.trace
            .print(stream::iter(records), &mut out)
            .await
            .unwrap();
        String::from_utf8(out).unwrap()
    }

    fn frames(count: usize) -> Vec<Traced> {
        vec![example::frame("sent", "text", 5); count]
    }

    #[tokio::test]
    async fn it_stops_at_the_count() {
        assert_eq!(
            traced(&["--count", "3"], frames(10)).await.lines().count(),
            3
        );
    }

    #[tokio::test]
    async fn what_is_over_the_rate_is_counted_aloud() {
        let shown = traced(&["--max-rate", "4", "--output", "json"], frames(10)).await;
        let records: Vec<TraceRecord> = shown
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(records.len(), 5);
        assert_eq!(records[4].what, Traced::Dropped { lines: 6 });
    }

    #[tokio::test]
    async fn loss_on_the_way_is_shown_whatever_is_asked_for() {
        let records = vec![
            Traced::Dropped { lines: 2 },
            example::frame("sent", "text", 5),
        ];
        let shown = traced(&["--only", "ping"], records).await;
        assert_eq!(shown.lines().count(), 1);
        assert!(shown.contains("2 lines left out"), "{shown}");
    }

    #[tokio::test]
    async fn a_reason_shows_only_on_demand() {
        let close = || {
            let mut frame = example::frame("received", "close", 8);
            if let Traced::Frame { code, reason, .. } = &mut frame {
                (*code, *reason) = (Some(4001), Some("secret".into()));
            }
            vec![frame]
        };
        assert!(!traced(&[], close()).await.contains("secret"));
        assert!(
            traced(&["--show-reasons"], close())
                .await
                .contains("secret")
        );
    }
}
