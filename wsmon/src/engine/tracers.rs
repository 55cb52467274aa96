//! Whoever traces: which records each one wants, and how many it can take.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::model::{
    filter::Filter,
    view::{ConnectionView, TraceRecord, Traced},
};

/// Records that may wait for a reader; what is over is counted and said.
const WAITING: usize = 8192;

/// See the module.
#[derive(Default)]
pub struct Tracers {
    all: Vec<Tracer>,
    /// Records that were lost so far.
    dropped: u64,
    /// Whether the kernel sends frames.
    pub frames_on: bool,
}

struct Tracer {
    filter: Filter,
    show_reasons: bool,
    max_rate: Option<u32>,
    window: Instant,
    in_window: u32,
    left_out: u64,
    records: mpsc::Sender<TraceRecord>,
}

impl Tracers {
    /// Adds one; `dropped` as in [`Tracers::hand_out`].
    pub fn add(
        &mut self,
        filter: Filter,
        max_rate: Option<u32>,
        show_reasons: bool,
        dropped: u64,
    ) -> mpsc::Receiver<TraceRecord> {
        if self.all.is_empty() {
            self.dropped = dropped;
        }
        let (records, receiver) = mpsc::channel(WAITING);
        self.all.push(Tracer {
            filter,
            show_reasons,
            max_rate,
            window: Instant::now(),
            in_window: 0,
            left_out: 0,
            records,
        });
        receiver
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Forgets those whose reader is gone; true if there were any.
    pub fn remove_closed(&mut self) -> bool {
        let before = self.all.len();
        self.all.retain(|tracer| !tracer.records.is_closed());
        self.all.len() != before
    }

    pub fn want_frames(&self) -> bool {
        self.all
            .iter()
            .any(|tracer| tracer.filter.only.want_frames())
    }

    /// Whether somebody wants this connection's frames, or may once more is known of it.
    pub fn may_want(&self, connection: &ConnectionView, is_settled: bool) -> bool {
        self.all
            .iter()
            .filter(|tracer| tracer.filter.only.want_frames())
            .any(|tracer| !is_settled || tracer.filter.matches_connection(connection))
    }

    /// Gives each one what it wants of `records`; `dropped` counts those that were lost on the way
    /// since the agent began.
    pub fn hand_out(&mut self, records: &[TraceRecord], dropped: u64) {
        let lost = dropped - self.dropped;
        self.dropped = dropped;
        for tracer in &mut self.all {
            tracer.left_out += lost;
            for record in records {
                if tracer.filter.matches_record(record) {
                    tracer.send(record);
                }
            }
            tracer.say_left_out();
        }
    }
}

impl Tracer {
    fn send(&mut self, record: &TraceRecord) {
        if self.window.elapsed() >= Duration::from_secs(1) {
            self.say_left_out();
            self.window = Instant::now();
            self.in_window = 0;
        }
        if self.max_rate.is_some_and(|rate| self.in_window >= rate) {
            self.left_out += 1;
            return;
        }
        let mut record = record.clone();
        if !self.show_reasons
            && let Traced::Frame { reason, .. } | Traced::Close { reason, .. } = &mut record.what
        {
            *reason = None;
        }
        match self.records.try_send(record) {
            Ok(()) => self.in_window += 1,
            Err(_) => self.left_out += 1,
        }
    }

    /// Says how many records are missing, once there is room to say it.
    fn say_left_out(&mut self) {
        if self.left_out == 0 {
            return;
        }
        let time = format!("{:.6}", jiff::Timestamp::now());
        let said = TraceRecord::dropped(time, self.left_out);
        if self.records.try_send(said).is_ok() {
            self.left_out = 0;
        }
    }
}
