//! The table.

use std::{fmt::Write as _, fs};

use anyhow::{Context as _, Result};

use super::{
    Samples, Scenario, scenario,
    traffic::{
        Inside::{Client, Server},
        Load::{Frames, Http, LargeFrame, Other},
        Pattern::{PingPong, Stream},
    },
};

/// Means over the runs of one round.
#[derive(Clone, Copy)]
pub struct Sample {
    /// Nanoseconds of a run of wsmon's program.
    pub wsmon: f64,
    /// Nanoseconds of a run of the empty program.
    pub floor: f64,
    /// Frames that a packet began.
    pub frames: f64,
}

impl Sample {
    fn above(&self) -> f64 {
        self.wsmon - self.floor
    }
}

struct Row {
    what: &'static str,
    how: &'static str,
    hook: &'static str,
    of: Scenario,
    /// The row is what more frames cost than in this scenario, for each of them.
    further_than: Option<Scenario>,
    /// Nanoseconds above the floor.
    target: Option<u32>,
}

const EGRESS: &str = "packet_egress";
const INGRESS: &str = "packet_ingress";
const SEND: &str = "process_send";
const RECEIVE: &str = "process_receive";

fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    let mut add = |what, how, hook, of, target| {
        rows.push(Row {
            what,
            how,
            hook,
            of,
            further_than: None,
            target,
        });
    };
    let one = "packet with one frame";
    add(
        one,
        "stream",
        EGRESS,
        scenario(Frames(1), Stream, Client),
        Some(60),
    );
    add(
        one,
        "stream",
        INGRESS,
        scenario(Frames(1), Stream, Server),
        Some(60),
    );
    add(
        one,
        "ping-pong",
        EGRESS,
        scenario(Frames(1), PingPong, Client),
        Some(60),
    );
    add(
        one,
        "ping-pong",
        INGRESS,
        scenario(Frames(1), PingPong, Server),
        Some(60),
    );
    let many = "packet with many frames";
    add(
        many,
        "stream",
        EGRESS,
        scenario(Frames(64), Stream, Client),
        None,
    );
    add(
        many,
        "stream",
        INGRESS,
        scenario(Frames(64), Stream, Server),
        None,
    );
    let further = "each further frame";
    add(
        further,
        "stream",
        EGRESS,
        scenario(Frames(64), Stream, Client),
        Some(8),
    );
    add(
        further,
        "stream",
        INGRESS,
        scenario(Frames(64), Stream, Server),
        Some(8),
    );
    let inside = "packet inside a 1 MiB frame";
    add(
        inside,
        "stream",
        EGRESS,
        scenario(LargeFrame, Stream, Client),
        None,
    );
    add(
        inside,
        "stream",
        INGRESS,
        scenario(LargeFrame, Stream, Server),
        None,
    );
    let ack = "acknowledgment";
    add(
        ack,
        "stream",
        EGRESS,
        scenario(Frames(1), Stream, Server),
        None,
    );
    add(
        ack,
        "stream",
        INGRESS,
        scenario(Frames(1), Stream, Client),
        None,
    );
    let other = "not a WebSocket";
    add(
        other,
        "stream",
        EGRESS,
        scenario(Other, Stream, Client),
        Some(20),
    );
    add(
        other,
        "stream",
        INGRESS,
        scenario(Other, Stream, Server),
        Some(20),
    );
    add(
        other,
        "ping-pong",
        EGRESS,
        scenario(Other, PingPong, Client),
        Some(20),
    );
    add(
        other,
        "ping-pong",
        INGRESS,
        scenario(Other, PingPong, Server),
        Some(20),
    );
    let other_ack = "not a WebSocket: acknowledgment";
    add(
        other_ack,
        "stream",
        EGRESS,
        scenario(Other, Stream, Server),
        None,
    );
    add(
        other_ack,
        "stream",
        INGRESS,
        scenario(Other, Stream, Client),
        None,
    );
    let get = "HTTP: GET on a kept connection";
    add(
        get,
        "ping-pong",
        EGRESS,
        scenario(Http, PingPong, Client),
        None,
    );
    add(
        get,
        "ping-pong",
        INGRESS,
        scenario(Http, PingPong, Server),
        None,
    );
    let answer = "HTTP: its answer";
    add(
        answer,
        "ping-pong",
        EGRESS,
        scenario(Http, PingPong, Server),
        Some(20),
    );
    add(
        answer,
        "ping-pong",
        INGRESS,
        scenario(Http, PingPong, Client),
        Some(20),
    );
    let call = "socket call";
    add(
        call,
        "stream",
        SEND,
        scenario(Frames(1), Stream, Client),
        None,
    );
    add(
        call,
        "stream",
        RECEIVE,
        scenario(Frames(1), Stream, Server),
        None,
    );
    let other_call = "not a WebSocket: socket call";
    add(
        other_call,
        "stream",
        SEND,
        scenario(Other, Stream, Client),
        None,
    );
    add(
        other_call,
        "stream",
        RECEIVE,
        scenario(Other, Stream, Server),
        None,
    );
    for row in rows.iter_mut().filter(|row| row.what == further) {
        row.further_than = Some(Scenario {
            load: Frames(1),
            ..row.of
        });
    }
    rows
}

/// The table, for people and for pages.
pub fn markdown(samples: &Samples, rounds: usize, packets: u64) -> Result<String> {
    let mut text = format!(
        "Linux {}, {}; {rounds} rounds of {packets} sends; nanoseconds.\n\n\
         | what | traffic | program | floor | above it | spread | frames | target |\n\
         |---|---|---|--:|--:|--:|--:|--:|\n",
        kernel()?,
        processor()?
    );
    for row in rows() {
        let Some(of) = samples.get(&(row.of, row.hook)) else {
            writeln!(
                text,
                "| {} | {} | `{}` | | not there | | | |",
                row.what, row.how, row.hook
            )?;
            continue;
        };
        let above: Vec<f64> = match row.further_than {
            None => of.iter().map(Sample::above).collect(),
            Some(than) => of
                .iter()
                .zip(&samples[&(than, row.hook)])
                .map(|(many, one)| (many.above() - one.above()) / (many.frames - one.frames))
                .collect(),
        };
        let (low, above, high) = quartiles(above);
        let digits = usize::from(row.further_than.is_some());
        let (_, floor, _) = quartiles(of.iter().map(|sample| sample.floor));
        let (_, frames, _) = quartiles(of.iter().map(|sample| sample.frames));
        let frames = match frames {
            0.0 => String::new(),
            few if few < 0.1 => format!("{few:.3}"),
            many => format!("{many:.1}"),
        };
        let target = row
            .target
            .map(|most| format!("≤ {most}"))
            .unwrap_or_default();
        writeln!(
            text,
            "| {} | {} | `{}` | {floor:.0} | **{above:.digits$}** | {low:.digits$}–{high:.digits$} | {frames} | {target} |",
            row.what, row.how, row.hook,
        )?;
    }
    Ok(text)
}

/// The lower quartile, the median and the upper quartile.
fn quartiles(values: impl IntoIterator<Item = f64>) -> (f64, f64, f64) {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let last = values.len() - 1;
    let at = |part: f64| values[(last as f64 * part).round() as usize];
    (at(0.25), at(0.5), at(0.75))
}

/// The kernel's version, without what a distribution added to it.
fn kernel() -> Result<String> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let version = release.trim().split(['-', '+']).next();
    Ok(version.context("the kernel's release is empty")?.to_owned())
}

fn processor() -> Result<String> {
    let info = fs::read_to_string("/proc/cpuinfo")?;
    let field = |name: &str| {
        info.lines().find_map(|line| {
            Some(
                line.strip_prefix(name)?
                    .trim_start_matches([' ', '\t', ':']),
            )
        })
    };
    let name = field("model name").unwrap_or(std::env::consts::ARCH);
    let count = info
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    Ok(format!("{name}, {count} CPUs"))
}
