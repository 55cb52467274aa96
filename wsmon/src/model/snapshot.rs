//! What is exported: sums by service, and how the agent itself is doing.

use std::collections::BTreeMap;

use super::clock::SECOND_NS;
use super::close_code::CodePolicy;
use super::handshake::{HandshakeResult, Outcome, StatusLabel, USUAL_OUTCOMES};
use super::histogram::{HANDSHAKE_EDGES, Histogram, IDLE_EDGES, LIFETIME_EDGES};
use super::lifecycle::{End, EndLabels, State, known_ends};
use super::service::ServiceLabels;
use super::traffic::Traffic;

/// Everything that a page of metrics is made of.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub services: Vec<ServiceSnapshot>,
    pub agent: AgentStats,
}

#[derive(Clone, Debug)]
pub struct ServiceSnapshot {
    pub labels: ServiceLabels,
    pub totals: Totals,
}

/// How the agent is doing. The model fills in what it knows; the rest is the engine's.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AgentStats {
    /// Engine: the tap in use, and why it was chosen (an enumeration).
    pub tap: String,
    pub tap_reason: String,
    /// Model: heads with lost pieces, and slots that were taken anew before they were counted.
    /// Engine: adds records that the ring had no room for, or that could not be read.
    pub events_lost: u64,
    /// Model.
    pub unsynced_bytes: u64,
    /// Model: directions of open connections whose frame boundary is not known now.
    pub unsynced_directions: u64,
    /// Engine: connections for which there was no slot.
    pub untracked_connections: u64,
    /// Engine: received segments that could not be kept until their turn.
    pub segments_dropped: u64,
    /// Engine: packets of followed connections whose headers could not be read.
    pub unparsed_packets: u64,
    /// Model: slots that are not free.
    pub slots_used: u64,
    /// Engine.
    pub slots_limit: u64,
    /// Engine: 0 to 1.
    pub ring_fill_ratio: f64,
    /// Model: connections and statuses that were counted as `other`.
    pub series_overflow: u64,
    /// Engine: connections that were open when the agent was started again over pinned maps.
    pub restarts_adopted: u64,
    /// Whoever serves the page: how long the page before took.
    pub scrape_duration_seconds: f64,
}

/// Counters of a service.
#[derive(Clone, Debug, PartialEq)]
pub struct Totals {
    /// By [`State::ALL`]; live connections only.
    pub connections: [u64; State::ALL.len()],
    pub handshakes: BTreeMap<(HandshakeResult, StatusLabel), u64>,
    /// Of handshakes that were answered.
    pub handshake_duration: Histogram,
    /// Sent and received.
    pub traffic: [Traffic; 2],
    pub closed: BTreeMap<EndLabels, u64>,
    pub connection_duration: Histogram,
    pub close_idle: Histogram,
    /// Milliseconds since the epoch; of the youngest process.
    pub process_start_ms: Option<u64>,
}

impl Totals {
    /// Every known combination at 0.
    pub fn new(policy: &CodePolicy) -> Self {
        Self {
            connections: [0; State::ALL.len()],
            handshakes: USUAL_OUTCOMES.into_iter().map(|usual| (usual, 0)).collect(),
            handshake_duration: Histogram::new(&HANDSHAKE_EDGES),
            traffic: [Traffic::default(), Traffic::default()],
            closed: known_ends(policy).map(|labels| (labels, 0)).collect(),
            connection_duration: Histogram::new(&LIFETIME_EDGES),
            close_idle: Histogram::new(&IDLE_EDGES),
            process_start_ms: None,
        }
    }

    pub fn add_handshake(&mut self, outcome: &Outcome, status: StatusLabel) {
        *self.handshakes.entry((outcome.result, status)).or_default() += 1;
        if let Some(duration) = outcome.duration_ns {
            self.handshake_duration.observe(duration);
        }
    }

    pub fn add_end(&mut self, end: &End) {
        *self.closed.entry(end.labels).or_default() += 1;
        self.connection_duration.observe(end.duration_ns);
        self.close_idle.observe(end.idle_ns);
    }
}

/// Nanoseconds that a service outlives its last connection.
pub const SERVICE_LINGER_NS: u64 = 600 * SECOND_NS;
