//! The state of every connection and service: events and time go in, snapshots come out.
//!
//! There are no sockets, clocks or tasks here. The engine passes ring events as they come and
//! [`Event::Slot`] for every slot that is not free on each sweep (every 250 ms and before a
//! snapshot), asks [`Model::unidentified`] and answers with [`Event::Process`], gives back the
//! slots of [`Model::take_releases`], and calls [`Model::tick`] about once a second.

pub mod clock;
pub mod close_code;
pub mod connection;
pub mod errors;
pub mod filter;
pub mod handshake;
pub mod histogram;
pub mod lifecycle;
mod owners;
mod report;
pub mod service;
pub mod snapshot;
pub mod trace;
pub mod traffic;
pub mod view;

use wsmon_common::slot::{
    STATE_ABANDONED, STATE_CANDIDATE, STATE_FREE, STATE_HANDSHAKE, STATE_OPEN, Slot,
};

use crate::decode::heads::Heads;
use crate::decode::http::{Request, Response};
use crate::decode::{ConnectionId, Direction, Event};
use clock::{ClockOffset, SECOND_NS};
use close_code::CodePolicy;
use connection::Connection;
use handshake::has_timed_out;
use lifecycle::End;
use owners::{Owner, Owners};
pub use report::Unidentified;
use service::{Hop, Roles, ServiceLabels, Services};
use trace::TracedFrame;
use view::TraceRecord;

/// How long late bytes may follow an end: a RST leaves after the socket's state is CLOSE.
const LINGER_NS: u64 = SECOND_NS;
/// How long the labels of a connection may take to settle.
const SETTLE_NS: u64 = SECOND_NS;
/// Trace records that wait to be taken; what is over is dropped and counted.
const MAX_RECORDS: usize = 65_536;

/// What the operator may choose.
#[derive(Clone, Debug)]
pub struct Config {
    pub max_services: usize,
    pub max_series: usize,
    /// Seconds after which a handshake without an answer is given up.
    pub handshake_timeout_seconds: u64,
    pub codes: CodePolicy,
    /// Whether close reasons appear in trace records.
    pub show_reasons: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_services: 200,
            max_series: 50_000,
            handshake_timeout_seconds: 60,
            codes: CodePolicy::default(),
            show_reasons: false,
        }
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Model {
    config: Config,
    clock: ClockOffset,
    owners: Owners,
    services: Services,
    roles: Roles,
    heads: Heads,
    releases: Vec<ConnectionId>,
    tracing: bool,
    records: Vec<TraceRecord>,
    records_dropped: u64,
    /// Of connections that are over.
    unsynced_bytes: u64,
    /// Slots that were taken anew before their last owner was counted in full.
    overtaken: u64,
}

impl Model {
    pub fn new(config: Config, clock: ClockOffset) -> Self {
        Self {
            services: Services::new(&config.codes, config.max_services, config.max_series),
            config,
            clock,
            owners: Owners::default(),
            roles: Roles::default(),
            heads: Heads::default(),
            releases: Vec::new(),
            tracing: false,
            records: Vec::new(),
            records_dropped: 0,
            unsynced_bytes: 0,
            overtaken: 0,
        }
    }

    /// Takes an event; `now_ns` is `CLOCK_MONOTONIC`.
    pub fn apply(&mut self, event: Event<'_>, now_ns: u64) {
        match event {
            Event::Slot { index, slot } => self.take_slot(index, slot, now_ns),
            Event::Head {
                id,
                direction,
                at,
                last,
                bytes,
                time_ns,
            } => self.take_head(id, direction, at, last, bytes, time_ns, now_ns),
            Event::Frame {
                id,
                direction,
                time_ns,
                first,
                masked,
                payload_len,
                frame,
            } => {
                let frame = TracedFrame {
                    direction,
                    time_ns,
                    first,
                    masked,
                    payload_len,
                    frame,
                };
                self.take_frame(id, frame, now_ns);
            }
            Event::Process { id, process } => {
                if let Some(connection) = self.current(id, now_ns) {
                    connection.process = Some(process);
                }
                self.advance(id.slot, now_ns);
            }
            // The engine looks at the slot, and passes on what it holds.
            Event::State { .. } => {}
        }
    }

    /// Whether the slot of this connection was passed before: if not, pass it first, so that
    /// records of its frames say where they belong.
    pub fn knows(&self, id: ConnectionId) -> bool {
        match self.owners.get(id.slot) {
            Owner::Current(connection) => connection.id == id && connection.seen_ns.is_some(),
            Owner::Released(generation) => *generation == id.generation,
            Owner::Nobody => false,
        }
    }

    /// Whether the connection's process was passed, or does not matter any more.
    pub fn knows_process(&self, id: ConnectionId) -> bool {
        match self.owners.get(id.slot) {
            Owner::Current(connection) => connection.id == id && connection.process.is_some(),
            Owner::Released(_) => true,
            Owner::Nobody => false,
        }
    }

    /// Connections that are counted in full: their slots go back to the pool.
    pub fn take_releases(&mut self) -> Vec<ConnectionId> {
        std::mem::take(&mut self.releases)
    }

    /// Whether records are made.
    pub fn set_tracing(&mut self, tracing: bool) {
        self.tracing = tracing;
    }

    /// What happened since the last call, for whoever traces.
    pub fn take_records(&mut self) -> Vec<TraceRecord> {
        std::mem::take(&mut self.records)
    }

    /// Records that nobody took in time.
    pub fn records_dropped(&self) -> u64 {
        self.records_dropped
    }

    /// Forgets what is over.
    pub fn tick(&mut self, now_ns: u64) {
        for connection in self.owners.connections() {
            self.roles.saw(connection, now_ns);
        }
        self.roles.expire(now_ns);
        self.services.expire(now_ns);
        self.heads.expire(now_ns);
        // Heads and processes of slots that never showed.
        self.owners
            .retain(|connection| connection.seen_ns.is_some() || connection.waits(now_ns));
    }

    fn take_slot(&mut self, index: u32, slot: &Slot, now_ns: u64) {
        if slot.state == STATE_FREE {
            self.overtake(index, now_ns);
            return;
        }
        let id = ConnectionId {
            slot: index,
            generation: slot.generation,
        };
        let Some(connection) = self.current(id, now_ns) else {
            return;
        };
        connection.slot = *slot;
        connection.seen_ns.get_or_insert(now_ns);
        self.advance(index, now_ns);
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of an event")]
    fn take_head(
        &mut self,
        id: ConnectionId,
        direction: Direction,
        at: u32,
        last: bool,
        bytes: &[u8],
        time_ns: u64,
        now_ns: u64,
    ) {
        if self.current(id, now_ns).is_none() {
            return;
        }
        let Some(head) = self.heads.add(id, direction, at, last, bytes, time_ns) else {
            return;
        };
        let Some(connection) = self.current(id, now_ns) else {
            return;
        };
        if head.bytes.is_empty() {
            return;
        }
        let handshake = &mut connection.handshake;
        // A server receives requests and sends responses; the head itself tells which it is.
        if head.bytes.starts_with(b"HTTP/") {
            let response = Response::parse(&head.bytes, head.whole);
            if response.is_final() {
                handshake.response = Some(response);
            }
        } else {
            handshake.request = Some(Request::parse(&head.bytes, head.whole));
            // Keep-alive: what was answered before was another request.
            handshake.response = None;
        }
        self.advance(id.slot, now_ns);
    }

    fn take_frame(&mut self, id: ConnectionId, frame: TracedFrame<'_>, now_ns: u64) {
        if !self.tracing {
            return;
        }
        let (clock, show_reasons) = (self.clock, self.config.show_reasons);
        let Some(connection) = self.current(id, now_ns) else {
            return;
        };
        let record = trace::frame(connection, clock, show_reasons, frame);
        self.push_record(record);
    }

    fn push_record(&mut self, record: TraceRecord) {
        if self.records.len() < MAX_RECORDS {
            self.records.push(record);
        } else {
            self.records_dropped += 1;
        }
    }

    /// The connection, made if it is new; none if it is over. A newer one ends an older.
    fn current(&mut self, id: ConnectionId, now_ns: u64) -> Option<&mut Connection> {
        let is_newer = |than: u32| (id.generation.wrapping_sub(than) as i32) > 0;
        let replace = match self.owners.get(id.slot) {
            Owner::Nobody => true,
            Owner::Current(connection) => is_newer(connection.id.generation),
            Owner::Released(generation) => is_newer(*generation),
        };
        if replace {
            self.overtake(id.slot, now_ns);
            let mut connection = Connection::new(id);
            connection.made_ns = now_ns;
            self.owners
                .replace(id.slot, Owner::Current(Box::new(connection)));
        }
        self.owners
            .current_mut(id.slot)
            .filter(|connection| connection.id == id)
    }

    /// The slot has another owner now: counts what was known last of this one.
    fn overtake(&mut self, index: u32, now_ns: u64) {
        let Some(connection) = self.owners.current_mut(index) else {
            return;
        };
        if connection.is_websocket() {
            self.overtaken += 1;
            if connection.slot.end_ns == 0 {
                connection.slot.end_ns = now_ns;
            }
        }
        self.fold(index, now_ns);
    }

    /// Does for a connection what has become possible, up to its end.
    fn advance(&mut self, index: u32, now_ns: u64) {
        let Some(connection) = self.owners.current_mut(index) else {
            return;
        };
        let Some(seen_ns) = connection.seen_ns else {
            return;
        };
        if connection.is_steady() {
            return;
        }
        if connection.is_websocket() {
            self.roles.saw(connection, now_ns);
            let hop = self.roles.hop(connection);
            let is_settled = connection.process.is_some() && hop == Hop::Proxy
                || now_ns.saturating_sub(seen_ns) >= SETTLE_NS;
            self.decide(index, now_ns);
            if is_settled {
                self.settle(index, hop, now_ns);
            }
        }
        if self.is_over(index, now_ns) {
            let id = self.fold(index, now_ns);
            self.releases.extend(id);
        }
    }

    /// Decides what came of a handshake once that can be said, and tells whoever traces.
    fn decide(&mut self, index: u32, now_ns: u64) {
        let timeout_ns = self.timeout_ns();
        let Some(connection) = self.owners.current_mut(index) else {
            return;
        };
        if connection.handshake.outcome.is_some() {
            return;
        }
        connection
            .handshake
            .decide(&connection.slot, timeout_ns, now_ns);
        if self.tracing
            && let Some(record) = trace::handshake(connection, self.clock, now_ns)
        {
            self.push_record(record);
        }
    }

    /// Whether the slot can be given back.
    fn is_over(&self, index: u32, now_ns: u64) -> bool {
        let Some(connection) = self.owners.current(index) else {
            return false;
        };
        let slot = &connection.slot;
        (slot.end_ns != 0 && now_ns.saturating_sub(slot.end_ns) >= LINGER_NS)
            || (self.is_overdue(connection, now_ns) && !connection.may_still_open())
    }

    /// Whether a handshake was given up, or a request that never got so far.
    fn is_overdue(&self, connection: &Connection, now_ns: u64) -> bool {
        matches!(
            connection.slot.state,
            STATE_CANDIDATE | STATE_HANDSHAKE | STATE_ABANDONED
        ) && has_timed_out(&connection.slot, self.timeout_ns(), now_ns)
    }

    fn timeout_ns(&self) -> u64 {
        self.config
            .handshake_timeout_seconds
            .saturating_mul(SECOND_NS)
    }

    /// Gives a connection its service, and counts what waited for it.
    fn settle(&mut self, index: u32, hop: Hop, now_ns: u64) {
        let Some(connection) = self.owners.current_mut(index) else {
            return;
        };
        let service = *connection.service.get_or_insert_with(|| {
            let labels = ServiceLabels::of(&connection.slot, connection.process.as_ref(), hop);
            self.services.join(labels, now_ns)
        });
        let started = connection
            .process
            .as_ref()
            .and_then(|process| process.start_ms);
        if let Some(service) = self.services.get_mut(service) {
            service.totals.process_start_ms = service.totals.process_start_ms.max(started);
        }
        if let Some(outcome) = &connection.handshake.outcome
            && !connection.handshake_counted
        {
            connection.handshake_counted = true;
            self.services.add_handshake(service, outcome);
        }
    }

    /// Counts a connection for good.
    fn fold(&mut self, index: u32, now_ns: u64) -> Option<ConnectionId> {
        let connection = self.owners.current_mut(index)?;
        let id = connection.id;
        if connection.is_websocket() && connection.seen_ns.is_some() {
            let hop = self.roles.hop(connection);
            // Heads that are not there by now do not come any more.
            self.decide(index, now_ns + LINGER_NS);
            self.settle(index, hop, now_ns);
        }
        let Owner::Current(connection) = self.owners.replace(index, Owner::Released(id.generation))
        else {
            return None;
        };
        for direction in Direction::ALL {
            self.heads.take(id, direction);
            self.unsynced_bytes += direction.of(&connection.slot).unsynced_passed();
        }
        let Some(service_id) = connection.service else {
            return Some(id);
        };
        self.services.leave(service_id, now_ns);
        let mut record = None;
        if let Some(service) = self.services.get_mut(service_id) {
            for direction in Direction::ALL {
                service.totals.traffic[direction as usize]
                    .add(direction.of(&connection.slot), connection.deflate());
            }
            if connection.slot.state == STATE_OPEN {
                let end = End::of(&connection.slot, &self.config.codes, now_ns);
                service.totals.add_end(&end);
                record = self
                    .tracing
                    .then(|| trace::close(&connection, self.clock, &end, now_ns));
            }
        }
        if let Some(record) = record {
            self.push_record(record);
        }
        Some(id)
    }
}

#[cfg(test)]
mod tests;
