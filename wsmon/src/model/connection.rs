//! One connection: the last copy of its slot, and what user space found out about it.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use wsmon_common::slot::{STATE_HANDSHAKE, STATE_OPEN, STATE_REFUSED, Slot};

use super::clock::{ClockOffset, SECOND_NS, seconds};
use super::handshake::Handshake;
use super::lifecycle::State;
use super::service::{Role, ServiceId, UNKNOWN, server_port};
use super::trace::TraceState;
use super::traffic;
use super::view::{ConnectionView, DirectionView};
use crate::decode::ConnectionId;
use crate::identity::Process;

#[derive(Debug)]
pub struct Connection {
    pub id: ConnectionId,
    /// Empty until the slot was seen.
    pub slot: Slot,
    /// When the slot was seen first; none before.
    pub seen_ns: Option<u64>,
    /// When the first event of it came.
    pub made_ns: u64,
    pub process: Option<Process>,
    /// Settled once, never changed.
    pub service: Option<ServiceId>,
    pub handshake: Handshake,
    pub handshake_counted: bool,
    pub trace: TraceState,
}

impl Connection {
    pub fn new(id: ConnectionId) -> Self {
        Self {
            id,
            slot: Slot::EMPTY,
            seen_ns: None,
            made_ns: 0,
            process: None,
            service: None,
            handshake: Handshake::default(),
            handshake_counted: false,
            trace: TraceState::default(),
        }
    }

    /// Whether a WebSocket was asked for. What is not one counts as nothing.
    pub fn is_websocket(&self) -> bool {
        matches!(
            self.slot.state,
            STATE_HANDSHAKE | STATE_OPEN | STATE_REFUSED
        )
    }

    /// Whether it is a WebSocket that is being opened or open.
    pub fn is_live(&self) -> bool {
        self.slot.end_ns == 0 && matches!(self.slot.state, STATE_HANDSHAKE | STATE_OPEN)
    }

    /// Whether an answer can still come: its socket asked for a WebSocket, and is there. It is
    /// followed for as long as that, however late the answer.
    pub fn may_still_open(&self) -> bool {
        self.slot.state == STATE_HANDSHAKE && self.slot.cookie != 0
    }

    /// Whether nothing can happen to it but its end: what a sweep finds of most connections.
    pub fn is_steady(&self) -> bool {
        self.handshake_counted && self.slot.state == STATE_OPEN && self.slot.end_ns == 0
    }

    /// Whether its slot may still show, although only events of it came so far.
    pub fn waits(&self, now_ns: u64) -> bool {
        now_ns.saturating_sub(self.made_ns) < 60 * SECOND_NS
    }

    /// The thread group, by the kernel or else by the process that was found.
    pub fn pid(&self) -> Option<u32> {
        match self.slot.pid {
            0 => self.process.as_ref().and_then(|process| process.pid),
            pid => Some(pid),
        }
    }

    pub fn process_name(&self) -> &str {
        self.process
            .as_ref()
            .map_or(UNKNOWN, |process| process.name.as_str())
    }

    /// Whether permessage-deflate was selected, once that is known.
    pub fn deflate(&self) -> Option<bool> {
        self.handshake.outcome.map(|outcome| outcome.deflate)
    }

    pub fn local(&self) -> SocketAddr {
        socket_address(self.slot.local, self.slot.local_port)
    }

    pub fn remote(&self) -> SocketAddr {
        socket_address(self.slot.remote, self.slot.remote_port)
    }

    pub fn label(&self) -> String {
        format!("{}-{}", self.id.slot, self.id.generation)
    }

    pub fn sent(&self) -> DirectionView {
        traffic::view(&self.slot.sent, self.deflate())
    }

    pub fn received(&self) -> DirectionView {
        traffic::view(&self.slot.received, self.deflate())
    }

    pub fn view(&self, clock: ClockOffset, now_ns: u64) -> ConnectionView {
        let slot = &self.slot;
        let opened_ns = if slot.response_ns == 0 {
            slot.request_ns
        } else {
            slot.response_ns
        };
        let active_ns = opened_ns
            .max(slot.sent.activity_ns)
            .max(slot.received.activity_ns);
        ConnectionView {
            id: self.label(),
            role: Role::of(slot).as_str().to_owned(),
            state: State::of(slot).as_str().to_owned(),
            process: self.process_name().to_owned(),
            pid: self.pid(),
            port: server_port(slot),
            local: self.local().to_string(),
            remote: self.remote().to_string(),
            handshake: self.handshake.view(slot),
            opened_at: clock.rfc3339(opened_ns),
            age_seconds: seconds(now_ns.saturating_sub(opened_ns)),
            idle_seconds: seconds(now_ns.saturating_sub(active_ns)),
            sent: self.sent(),
            received: self.received(),
        }
    }
}

/// An address as the slot has it, IPv4 as itself.
fn socket_address(address: [u8; 16], port: u16) -> SocketAddr {
    let address = IpAddr::from(Ipv6Addr::from(address)).to_canonical();
    SocketAddr::new(address, port)
}
