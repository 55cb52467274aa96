//! To which service does a connection belong?
//!
//! The labels of a service are settled before it is first exported and never change. So `hop` is
//! what is known when a connection settles: it is `proxy` if its process was seen with both roles
//! in the last ten minutes. The first connection that a proxy takes is waited with for a second;
//! a proxy that dials its upstream later than that has its first connections under `endpoint`,
//! and so has one that keeps its upstream connections in another process.

use std::collections::{BTreeMap, HashMap};

use wsmon_common::slot::{ROLE_CLIENT, Slot};

use super::close_code::CodePolicy;
use super::connection::Connection;
use super::handshake::{Outcome, StatusLabel};
use super::snapshot::{SERVICE_LINGER_NS, Totals};
use crate::identity::Process;

/// Which end this host's socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    Server,
    Client,
}

impl Role {
    pub fn of(slot: &Slot) -> Self {
        if slot.role == ROLE_CLIENT {
            Self::Client
        } else {
            Self::Server
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Client => "client",
        }
    }
}

/// Whether the process only passes messages on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Hop {
    Endpoint,
    Proxy,
}

impl Hop {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Endpoint => "endpoint",
            Self::Proxy => "proxy",
        }
    }
}

/// The server's port in a connection.
pub fn server_port(slot: &Slot) -> u16 {
    match Role::of(slot) {
        Role::Server => slot.local_port,
        Role::Client => slot.remote_port,
    }
}

/// What every series of a service carries.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceLabels {
    pub role: Role,
    pub hop: Hop,
    pub process: String,
    /// The server's; none in the services that take what is over the limit.
    pub port: Option<u16>,
    pub container: Option<String>,
    pub pod: Option<String>,
    pub namespace: Option<String>,
}

impl ServiceLabels {
    pub fn of(slot: &Slot, process: Option<&Process>, hop: Hop) -> Self {
        Self {
            role: Role::of(slot),
            hop,
            process: process.map_or_else(|| UNKNOWN.to_owned(), |process| process.name.clone()),
            port: Some(server_port(slot)),
            container: process.and_then(|process| process.container.clone()),
            pod: process.and_then(|process| process.pod.clone()),
            namespace: process.and_then(|process| process.namespace.clone()),
        }
    }

    /// The service that takes what is over the limit.
    fn other(role: Role, hop: Hop) -> Self {
        Self {
            role,
            hop,
            process: OTHER.to_owned(),
            port: None,
            container: None,
            pod: None,
            namespace: None,
        }
    }
}

/// A process that is not known.
pub const UNKNOWN: &str = "unknown";
/// What is over a limit.
pub const OTHER: &str = "other";
/// Services for what is over the limit: by role and hop.
const OTHERS: usize = 4;

/// Series of a service beside handshakes and ends: states, frames, messages, payload, compressed,
/// errors, process start; and five histograms with their sums and counts.
const FIXED_SERIES: usize = 4 + 14 + 4 + 2 + 2 + 13 + 1 + (12 + 2) * 3 + (13 + 2) * 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceId(u64);

#[derive(Debug)]
pub struct Service {
    pub labels: ServiceLabels,
    /// Of connections that are over.
    pub totals: Totals,
    live: u64,
    last_used_ns: u64,
}

/// All services, as many as the limits allow.
#[derive(Debug)]
pub struct Services {
    ids: HashMap<ServiceLabels, ServiceId>,
    by_id: BTreeMap<ServiceId, Service>,
    next: u64,
    fresh: Totals,
    limit: usize,
    max_series: usize,
    series: usize,
    overflow: u64,
}

impl Services {
    pub fn new(policy: &CodePolicy, max_services: usize, max_series: usize) -> Self {
        Self {
            ids: HashMap::new(),
            by_id: BTreeMap::new(),
            next: 0,
            fresh: Totals::new(policy),
            limit: max_services,
            max_series,
            series: 0,
            overflow: 0,
        }
    }

    /// The service of a connection that has just settled; it must be left again.
    pub fn join(&mut self, labels: ServiceLabels, now_ns: u64) -> ServiceId {
        let id = if let Some(id) = self.ids.get(&labels) {
            *id
        } else if self.has_room() {
            self.create(labels)
        } else {
            self.overflow += 1;
            let other = ServiceLabels::other(labels.role, labels.hop);
            match self.ids.get(&other) {
                Some(id) => *id,
                None => self.create(other),
            }
        };
        if let Some(service) = self.by_id.get_mut(&id) {
            service.live += 1;
            service.last_used_ns = now_ns;
        }
        id
    }

    /// One connection of the service is over.
    pub fn leave(&mut self, id: ServiceId, now_ns: u64) {
        if let Some(service) = self.by_id.get_mut(&id) {
            service.live = service.live.saturating_sub(1);
            service.last_used_ns = now_ns;
        }
    }

    pub fn get_mut(&mut self, id: ServiceId) -> Option<&mut Service> {
        self.by_id.get_mut(&id)
    }

    /// Counts a handshake; a status beyond the limit as `other`.
    pub fn add_handshake(&mut self, id: ServiceId, outcome: &Outcome) {
        let room = self.series + self.reserve() < self.max_series;
        let Some(service) = self.by_id.get_mut(&id) else {
            return;
        };
        let mut status = outcome.status;
        if !service
            .totals
            .handshakes
            .contains_key(&(outcome.result, status))
        {
            if room {
                self.series += 1;
            } else {
                status = StatusLabel::Other;
                self.overflow += 1;
            }
        }
        service.totals.add_handshake(outcome, status);
    }

    /// Drops services whose last connection is long over.
    pub fn expire(&mut self, now_ns: u64) {
        let usual = self.fresh.handshakes.len();
        let per_service = self.series_per_service();
        self.by_id.retain(|_, service| {
            let keep =
                service.live > 0 || now_ns.saturating_sub(service.last_used_ns) < SERVICE_LINGER_NS;
            if !keep {
                self.ids.remove(&service.labels);
                let extra = service.totals.handshakes.len().saturating_sub(usual);
                self.series = self.series.saturating_sub(per_service + extra);
            }
            keep
        });
    }

    pub fn iter(&self) -> impl Iterator<Item = (ServiceId, &Service)> {
        self.by_id.iter().map(|(&id, service)| (id, service))
    }

    /// Connections and statuses that were counted as `other`.
    pub fn overflow(&self) -> u64 {
        self.overflow
    }

    /// Series that a new service brings.
    pub fn series_per_service(&self) -> usize {
        FIXED_SERIES + self.fresh.handshakes.len() + self.fresh.closed.len()
    }

    /// Series that are kept free for the services that take what is over the limit.
    fn reserve(&self) -> usize {
        OTHERS * self.series_per_service()
    }

    fn has_room(&self) -> bool {
        self.by_id.len() < self.limit
            && self.series + self.series_per_service() + self.reserve() <= self.max_series
    }

    fn create(&mut self, labels: ServiceLabels) -> ServiceId {
        let id = ServiceId(self.next);
        self.next += 1;
        self.series += self.series_per_service();
        self.ids.insert(labels.clone(), id);
        self.by_id.insert(
            id,
            Service {
                labels,
                totals: self.fresh.clone(),
                live: 0,
                last_used_ns: 0,
            },
        );
        id
    }
}

/// Which roles processes were seen in lately.
#[derive(Debug, Default)]
pub struct Roles(HashMap<u32, [Option<u64>; 2]>);

impl Roles {
    pub fn saw(&mut self, connection: &Connection, now_ns: u64) {
        if let Some(pid) = connection.pid()
            && connection.is_websocket()
        {
            let role = Role::of(&connection.slot);
            self.0.entry(pid).or_default()[role as usize] = Some(now_ns);
        }
    }

    pub fn hop(&self, connection: &Connection) -> Hop {
        match connection.pid().and_then(|pid| self.0.get(&pid)) {
            Some([Some(_), Some(_)]) => Hop::Proxy,
            _ => Hop::Endpoint,
        }
    }

    pub fn expire(&mut self, now_ns: u64) {
        self.0.retain(|_, seen| {
            for time in seen.iter_mut() {
                *time = time.filter(|time| now_ns.saturating_sub(*time) < SERVICE_LINGER_NS);
            }
            seen.iter().any(Option::is_some)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::ConnectionId;
    use crate::model::handshake::HandshakeResult;
    use wsmon_common::slot::{ROLE_SERVER, STATE_OPEN};

    fn labels(port: u16) -> ServiceLabels {
        let mut slot = Slot::EMPTY;
        slot.local_port = port;
        ServiceLabels::of(&slot, None, Hop::Endpoint)
    }

    fn services(max_services: usize, max_series: usize) -> Services {
        Services::new(&CodePolicy::default(), max_services, max_series)
    }

    #[test]
    fn what_is_over_the_limit_of_services_goes_to_other() {
        let mut services = services(2, 50_000);
        let first = services.join(labels(1), 0);
        let second = services.join(labels(2), 0);
        let third = services.join(labels(3), 0);
        assert_ne!(first, second);
        assert_eq!(services.join(labels(1), 0), first);
        assert_eq!(services.join(labels(4), 0), third);
        assert_eq!(services.overflow(), 2);
        let other = &services.get_mut(third).unwrap().labels;
        assert_eq!((other.process.as_str(), other.port), (OTHER, None));
    }

    #[test]
    fn the_limit_of_series_holds_whatever_happens() {
        let mut services = services(200, 3000);
        for port in 0..300 {
            let id = services.join(labels(port), 0);
            for status in 0..600 {
                let outcome = Outcome {
                    result: HandshakeResult::Rejected,
                    status: StatusLabel::Known(status),
                    duration_ns: None,
                    deflate: false,
                };
                services.add_handshake(id, &outcome);
            }
        }
        let ends = services.fresh.closed.len();
        let real: usize = services
            .iter()
            .map(|(_, service)| FIXED_SERIES + ends + service.totals.handshakes.len())
            .sum();
        assert!(real <= 3000, "{real}");
        assert_eq!(real, services.series);
        assert!(services.overflow() > 0);
    }

    #[test]
    fn two_hundred_services_fit_into_the_default_number_of_series() {
        let mut services = services(200, 50_000);
        for port in 0..200 {
            services.join(labels(port), 0);
        }
        assert_eq!(services.overflow(), 0);
    }

    #[test]
    fn a_service_is_dropped_ten_minutes_after_its_last_connection() {
        let mut services = services(200, 50_000);
        let id = services.join(labels(1), 0);
        services.expire(SERVICE_LINGER_NS * 2);
        services.leave(id, SERVICE_LINGER_NS * 2);
        services.expire(SERVICE_LINGER_NS * 3 - 1);
        assert_eq!(services.iter().count(), 1);
        services.expire(SERVICE_LINGER_NS * 3);
        assert_eq!(services.iter().count(), 0);
        assert_eq!(services.series, 0);
    }

    #[test]
    fn a_process_with_both_roles_is_a_proxy() {
        let id = ConnectionId {
            slot: 0,
            generation: 1,
        };
        let (mut front, mut back) = (Connection::new(id), Connection::new(id));
        for (connection, role) in [(&mut front, ROLE_SERVER), (&mut back, ROLE_CLIENT)] {
            connection.slot.state = STATE_OPEN;
            (connection.slot.pid, connection.slot.role) = (1, role);
        }
        let mut roles = Roles::default();
        roles.saw(&front, 0);
        assert_eq!(roles.hop(&front), Hop::Endpoint);
        roles.saw(&back, SERVICE_LINGER_NS - 1);
        assert_eq!(roles.hop(&front), Hop::Proxy);
        roles.expire(SERVICE_LINGER_NS);
        assert_eq!(roles.hop(&front), Hop::Endpoint);
    }
}
