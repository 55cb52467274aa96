//! What the model knows: the side that is read.

use std::collections::HashMap;
use std::net::SocketAddr;

use super::Model;
use super::lifecycle::State;
use super::snapshot::{ServiceSnapshot, Snapshot};
use super::view::ConnectionView;
use crate::decode::{ConnectionId, Direction};

/// A connection whose process is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unidentified {
    pub id: ConnectionId,
    /// As the kernel has it; without one the socket must be looked up by its addresses.
    pub pid: Option<u32>,
    pub local: SocketAddr,
    pub remote: SocketAddr,
}

/// A connection that may be traced.
pub struct Traceable {
    pub slot: u32,
    pub view: ConnectionView,
    /// Whether no more will become known of whose it is.
    pub is_settled: bool,
}

impl Model {
    /// WebSockets whose process is not known. Each comes again until it is answered with
    /// [`Event::Process`], or until it has settled without.
    pub fn unidentified(&self) -> Vec<Unidentified> {
        self.owners
            .connections()
            .filter(|connection| connection.process.is_none() && connection.is_websocket())
            .filter(|connection| connection.service.is_none() || connection.slot.pid != 0)
            .map(|connection| Unidentified {
                id: connection.id,
                pid: (connection.slot.pid != 0).then_some(connection.slot.pid),
                local: connection.local(),
                remote: connection.remote(),
            })
            .collect()
    }

    /// The WebSockets that can have frames from now on.
    pub fn traceable(&self, now_ns: u64) -> impl Iterator<Item = Traceable> {
        self.owners
            .connections()
            .filter(|connection| connection.is_live())
            .map(move |connection| Traceable {
                slot: connection.id.slot,
                view: connection.view(self.clock, now_ns),
                is_settled: connection.process.is_some() || connection.service.is_some(),
            })
    }

    /// Sums by service. Live connections are in it with what they have so far.
    pub fn snapshot(&self, now_ns: u64) -> Snapshot {
        let mut snapshot = Snapshot::default();
        let mut places = HashMap::new();
        for (id, service) in self.services.iter() {
            places.insert(id, snapshot.services.len());
            snapshot.services.push(ServiceSnapshot {
                labels: service.labels.clone(),
                totals: service.totals.clone(),
            });
        }
        let agent = &mut snapshot.agent;
        agent.events_lost = self.heads.lost() + self.overtaken;
        agent.series_overflow = self.services.overflow();
        agent.unsynced_bytes = self.unsynced_bytes;
        for connection in self.owners.connections() {
            agent.slots_used += 1;
            for direction in Direction::ALL {
                let passed = direction.of(&connection.slot);
                agent.unsynced_bytes += passed.unsynced_passed();
                agent.unsynced_directions += u64::from(passed.lost_at != 0 && connection.is_live());
            }
            let Some(&place) = connection.service.as_ref().and_then(|id| places.get(id)) else {
                continue;
            };
            let totals = &mut snapshot.services[place].totals;
            if connection.is_live() && !self.is_overdue(connection, now_ns) {
                totals.connections[State::of(&connection.slot) as usize] += 1;
            }
            for direction in Direction::ALL {
                totals.traffic[direction as usize]
                    .add(direction.of(&connection.slot), connection.deflate());
            }
        }
        snapshot
    }

    /// The WebSockets that are being opened or open.
    pub fn connections(&self, now_ns: u64) -> Vec<ConnectionView> {
        self.owners
            .connections()
            .filter(|connection| connection.is_live())
            .map(|connection| connection.view(self.clock, now_ns))
            .collect()
    }
}
