use super::*;
use crate::identity::Process;
use view::Traced;
use wsmon_common::slot::{ROLE_CLIENT, ROLE_SERVER, SIDE_REMOTE, STATE_REFUSED, TCP_FIN};

const REQUEST: &[u8] = b"GET /chat HTTP/1.1\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const RESPONSE: &[u8] =
    b"HTTP/1.1 101 S\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
const S: u64 = SECOND_NS;

/// Drives a model as the engine does.
struct Host {
    model: Model,
    now: u64,
}

impl Host {
    fn new() -> Self {
        let clock = ClockOffset {
            realtime_minus_monotonic_ns: 0,
        };
        Self {
            model: Model::new(Config::default(), clock),
            now: S,
        }
    }

    fn see(&mut self, index: u32, slot: &Slot) {
        self.model.apply(Event::Slot { index, slot }, self.now);
    }

    fn head(&mut self, id: ConnectionId, direction: Direction, bytes: &[u8]) {
        let event = Event::Head {
            id,
            direction,
            at: 0,
            last: true,
            bytes,
            time_ns: self.now,
        };
        self.model.apply(event, self.now);
    }

    fn process(&mut self, id: ConnectionId, pid: u32, name: &str) {
        let process = Process {
            pid: Some(pid),
            name: name.into(),
            ..Process::default()
        };
        self.model.apply(Event::Process { id, process }, self.now);
    }

    fn only_service(&self) -> ServiceSnapshot {
        let mut services = self.model.snapshot(self.now).services;
        assert_eq!(services.len(), 1);
        services.remove(0)
    }
}

fn id(slot: u32, generation: u32) -> ConnectionId {
    ConnectionId { slot, generation }
}

fn slot(generation: u32, state: u8) -> Slot {
    let mut slot = Slot {
        generation,
        state,
        role: ROLE_SERVER,
        local_port: 8080,
        remote_port: 50_000,
        request_ns: S,
        ..Slot::EMPTY
    };
    slot.local[10..].copy_from_slice(&[0xff, 0xff, 127, 0, 0, 1]);
    slot.remote[10..].copy_from_slice(&[0xff, 0xff, 127, 0, 0, 1]);
    if state == STATE_OPEN {
        (slot.status, slot.response_ns) = (101, S + 1000);
    }
    slot
}

fn closed(service: &ServiceSnapshot) -> Vec<(String, &'static str, &'static str, u64)> {
    service
        .totals
        .closed
        .iter()
        .filter(|(_, count)| **count != 0)
        .map(|(end, count)| {
            (
                end.code.to_string(),
                end.cause.as_str(),
                end.initiator.as_str(),
                *count,
            )
        })
        .collect()
}

fn handshakes(service: &ServiceSnapshot) -> Vec<(&'static str, String, u64)> {
    service
        .totals
        .handshakes
        .iter()
        .filter(|(_, count)| **count != 0)
        .map(|((result, status), count)| (result.as_str(), status.to_string(), *count))
        .collect()
}

#[test]
fn a_connection_counts_while_it_is_open_and_after() {
    let mut host = Host::new();
    let mut open = slot(1, STATE_OPEN);
    open.sent.frames[1] = 3;
    host.see(0, &open);
    host.process(id(0, 1), 42, "server");
    host.now += S;
    host.see(0, &open);
    let service = host.only_service();
    assert_eq!(service.labels.process, "server");
    assert_eq!(service.labels.port, Some(8080));
    assert_eq!(service.totals.connections, [0, 1, 0, 0]);
    assert_eq!(service.totals.traffic[0].frames[1], 3);
    assert_eq!(handshakes(&service), [("accepted", "101".into(), 1)]);

    open.sent.frames[1] = 5;
    (open.received.close_code, open.first_close) = (1001, SIDE_REMOTE);
    open.end_ns = host.now;
    host.see(0, &open);
    let ended = host.only_service();
    assert_eq!(ended.totals.connections, [0; 4]);
    assert_eq!(ended.totals.traffic[0].frames[1], 5);
    assert!(
        closed(&ended).is_empty(),
        "late bytes may follow for a second"
    );
    assert!(host.model.take_releases().is_empty());

    host.now += S;
    open.sent.frames[3] = 1;
    host.see(0, &open);
    assert_eq!(host.model.take_releases(), [id(0, 1)]);
    let over = host.only_service();
    assert_eq!(over.totals.traffic[0].frames[1], 5);
    assert_eq!(over.totals.traffic[0].frames[3], 1);
    assert_eq!(closed(&over), [("1001".into(), "close_frame", "remote", 1)]);

    // The slot shows its last owner until the kernel takes it again.
    host.now += S;
    host.see(0, &open);
    assert!(host.model.take_releases().is_empty());
    assert_eq!(host.only_service().totals, over.totals);
    assert_eq!(host.model.snapshot(host.now).agent.events_lost, 0);
}

#[test]
fn labels_settle_within_a_second_and_do_not_change() {
    let mut host = Host::new();
    let open = slot(1, STATE_OPEN);
    host.see(0, &open);
    assert!(host.model.snapshot(host.now).services.is_empty());
    assert_eq!(host.model.unidentified().len(), 1);
    host.now += S;
    host.see(0, &open);
    assert_eq!(host.only_service().labels.process, "unknown");
    host.process(id(0, 1), 42, "late");
    host.see(0, &open);
    assert_eq!(host.only_service().labels.process, "unknown");
    assert_eq!(host.model.connections(host.now)[0].process, "late");
    assert!(host.model.unidentified().is_empty());
}

#[test]
fn a_process_with_both_roles_is_a_proxy_from_its_first_connection() {
    let mut host = Host::new();
    let (mut front, mut back) = (slot(1, STATE_OPEN), slot(1, STATE_OPEN));
    (front.pid, back.pid, back.role) = (7, 7, ROLE_CLIENT);
    host.see(0, &front);
    host.process(id(0, 1), 7, "nginx");
    host.see(1, &back);
    host.process(id(1, 1), 7, "nginx");
    host.see(0, &front);
    let services = host.model.snapshot(host.now).services;
    assert_eq!(services.len(), 2);
    assert!(
        services
            .iter()
            .all(|service| service.labels.hop == Hop::Proxy)
    );
}

#[test]
fn what_is_no_websocket_counts_as_nothing() {
    let mut host = Host::new();
    host.see(0, &slot(1, STATE_CANDIDATE));
    let mut abandoned = slot(1, STATE_ABANDONED);
    abandoned.end_ns = host.now;
    host.see(0, &abandoned);
    host.now += 2 * S;
    host.see(0, &abandoned);
    assert!(host.model.snapshot(host.now).services.is_empty());
    assert_eq!(host.model.take_releases(), [id(0, 1)]);
    assert!(host.model.connections(host.now).is_empty());
}

#[test]
fn a_refusal_is_a_handshake_and_no_close() {
    let mut host = Host::new();
    let mut refused = slot(1, STATE_REFUSED);
    (refused.status, refused.response_ns, refused.end_ns) = (403, S + 5, S + 5);
    host.see(0, &refused);
    host.now += 2 * S;
    host.see(0, &refused);
    let service = host.only_service();
    assert_eq!(handshakes(&service), [("rejected", "403".into(), 1)]);
    assert!(closed(&service).is_empty());
}

#[test]
fn a_handshake_without_an_answer_is_given_up() {
    let mut host = Host::new();
    let waiting = slot(1, STATE_HANDSHAKE);
    host.see(0, &waiting);
    host.now += S;
    host.see(0, &waiting);
    assert_eq!(host.only_service().totals.connections, [1, 0, 0, 0]);
    host.now += 60 * S;
    host.see(0, &waiting);
    let service = host.only_service();
    assert_eq!(handshakes(&service), [("timeout", "none".into(), 1)]);
    assert_eq!(service.totals.connections, [0; 4]);
    assert_eq!(host.model.take_releases(), [id(0, 1)]);
}

#[test]
fn a_slot_that_was_taken_anew_loses_only_what_came_after_the_last_look() {
    let mut host = Host::new();
    let mut first = slot(1, STATE_OPEN);
    first.received.frames[2] = 9;
    first.received.tcp_flags = TCP_FIN;
    host.see(0, &first);
    host.now += S;
    host.see(0, &slot(2, STATE_OPEN));
    let snapshot = host.model.snapshot(host.now);
    assert_eq!(snapshot.agent.events_lost, 1);
    let service = &snapshot.services[0];
    assert_eq!(service.totals.traffic[1].frames[2], 9);
    assert_eq!(closed(service), [("1006".into(), "fin", "unknown", 1)]);
    assert!(host.model.take_releases().is_empty());
    host.see(0, &first);
    assert_eq!(host.model.connections(host.now)[0].id, "0-2");
}

#[test]
fn a_service_goes_ten_minutes_after_its_last_connection() {
    let mut host = Host::new();
    let mut open = slot(1, STATE_OPEN);
    open.end_ns = host.now;
    host.see(0, &open);
    host.now += 2 * S;
    host.see(0, &open);
    assert_eq!(host.model.snapshot(host.now).services.len(), 1);
    host.now += 600 * S;
    host.model.tick(host.now);
    assert!(host.model.snapshot(host.now).services.is_empty());
}

#[test]
fn records_are_made_only_while_somebody_traces() {
    let mut host = Host::new();
    let frame = |time_ns| Event::Frame {
        id: id(0, 1),
        direction: Direction::Sent,
        time_ns,
        first: 0xc1,
        masked: false,
        payload_len: 7,
        frame: &[],
    };
    host.model.apply(frame(1), host.now);
    assert!(host.model.take_records().is_empty());
    host.model.set_tracing(true);

    assert!(!host.model.knows(id(0, 1)));
    host.head(id(0, 1), Direction::Received, REQUEST);
    host.head(id(0, 1), Direction::Sent, RESPONSE);
    let mut open = slot(1, STATE_OPEN);
    host.see(0, &open);
    assert!(host.model.knows(id(0, 1)));
    host.model.apply(frame(S + 2000), host.now);
    open.end_ns = host.now;
    host.see(0, &open);
    host.now += S;
    host.see(0, &open);

    let records = host.model.take_records();
    assert_eq!(records.len(), 3);
    assert!(
        records
            .iter()
            .all(|record| record.path.as_deref() == Some("/chat"))
    );
    assert_eq!(records[0].remote, "127.0.0.1:50000");
    assert!(matches!(&records[0].what, Traced::Handshake { result, .. } if result == "accepted"));
    assert!(matches!(
        &records[1].what,
        Traced::Frame {
            rsv: 4,
            length: 7,
            ..
        }
    ));
    assert!(matches!(&records[2].what, Traced::Close { code: 1006, .. }));
}

#[test]
fn a_connection_is_shown_with_what_its_handshake_said() {
    let mut host = Host::new();
    host.head(id(0, 1), Direction::Received, REQUEST);
    host.head(id(0, 1), Direction::Sent, RESPONSE);
    host.see(0, &slot(1, STATE_OPEN));
    host.now += 10 * S;
    let view = &host.model.connections(host.now)[0];
    assert_eq!(view.handshake.path.as_deref(), Some("/chat"));
    assert_eq!(
        (view.role.as_str(), view.state.as_str()),
        ("server", "open")
    );
    assert_eq!(view.handshake.status, Some(101));
    assert!(view.age_seconds > 9.9 && view.idle_seconds > 9.9);
}
