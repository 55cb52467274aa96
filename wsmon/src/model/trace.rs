//! What happened, one record at a time, for whoever traces.

use std::collections::VecDeque;

use wsmon_common::frame::{FIN, OPCODE_CLOSE, OPCODE_PING, OPCODE_PONG, RSV};
use wsmon_common::slot::{CLOSE_NO_STATUS, FRAME_CLASSES, frame_class};

use super::clock::{ClockOffset, seconds};
use super::connection::Connection;
use super::lifecycle::End;
use super::service::{Role, server_port};
use super::view::{TraceRecord, Traced};
use crate::decode::Direction;
use crate::decode::sanitise::clean;

/// Pings that wait for their pong; the oldest is forgotten for a new one.
const MAX_PINGS: usize = 16;

/// What is kept of a traced connection from one frame to the next.
#[derive(Debug, Default)]
pub struct TraceState {
    pings: VecDeque<Ping>,
    /// Of the first Close frame, if reasons are shown.
    reason: Option<String>,
}

#[derive(Debug)]
struct Ping {
    direction: Direction,
    payload: Vec<u8>,
    time_ns: u64,
}

/// A frame as the kernel reports it.
#[derive(Clone, Copy, Debug)]
pub struct TracedFrame<'a> {
    pub direction: Direction,
    pub time_ns: u64,
    /// The first byte of the header.
    pub first: u8,
    pub masked: bool,
    pub payload_len: u64,
    /// The whole frame for a control frame, else empty.
    pub frame: &'a [u8],
}

/// The record of a frame.
pub fn frame(
    connection: &mut Connection,
    clock: ClockOffset,
    show_reasons: bool,
    seen: TracedFrame<'_>,
) -> TraceRecord {
    let opcode = seen.first & 0x0f;
    let payload = control_payload(&seen);
    let rtt_ns = match opcode {
        OPCODE_PING => {
            connection.trace.saw_ping(&seen, &payload);
            None
        }
        OPCODE_PONG => connection.trace.answer(&seen, &payload),
        _ => None,
    };
    let (mut code, mut reason) = (None, None);
    if opcode == OPCODE_CLOSE {
        let (found, text) = close_payload(&payload);
        code = Some(found);
        if show_reasons {
            reason = text;
            if connection.trace.reason.is_none() {
                connection.trace.reason.clone_from(&reason);
            }
        }
    }
    let what = Traced::Frame {
        direction: seen.direction.as_str().to_owned(),
        opcode: FRAME_CLASSES[frame_class(opcode)].to_owned(),
        fin: seen.first & FIN != 0,
        rsv: (seen.first & RSV) >> 4,
        masked: seen.masked,
        length: seen.payload_len,
        rtt_seconds: rtt_ns.map(seconds),
        code,
        reason,
    };
    record(connection, clock, seen.time_ns, what)
}

/// The record of a handshake whose outcome is known.
pub fn handshake(connection: &Connection, clock: ClockOffset, now_ns: u64) -> Option<TraceRecord> {
    let outcome = connection.handshake.outcome?;
    let slot = &connection.slot;
    let time_ns = [slot.response_ns, slot.end_ns]
        .into_iter()
        .find(|&time| time != 0)
        .unwrap_or(now_ns);
    let what = Traced::Handshake {
        result: outcome.result.as_str().to_owned(),
        handshake: connection.handshake.view(slot),
    };
    Some(record(connection, clock, time_ns, what))
}

/// The record of an end.
pub fn close(connection: &Connection, clock: ClockOffset, end: &End, now_ns: u64) -> TraceRecord {
    let time_ns = match connection.slot.end_ns {
        0 => now_ns,
        time => time,
    };
    let what = Traced::Close {
        code: end.code,
        reason: connection.trace.reason.clone(),
        initiator: end.labels.initiator.as_str().to_owned(),
        cause: end.labels.cause.as_str().to_owned(),
        severity: end.labels.severity.as_str().to_owned(),
        duration_seconds: seconds(end.duration_ns),
        unsent_bytes: connection.slot.unsent,
        sent: connection.sent(),
        received: connection.received(),
    };
    record(connection, clock, time_ns, what)
}

fn record(connection: &Connection, clock: ClockOffset, time_ns: u64, what: Traced) -> TraceRecord {
    TraceRecord {
        time: clock.rfc3339(time_ns),
        connection: connection.label(),
        role: Role::of(&connection.slot).as_str().to_owned(),
        process: connection.process_name().to_owned(),
        pid: connection.pid(),
        local: connection.local().to_string(),
        remote: connection.remote().to_string(),
        port: server_port(&connection.slot),
        path: connection
            .handshake
            .request
            .as_ref()
            .and_then(|request| request.path.clone()),
        what,
    }
}

impl TraceState {
    fn saw_ping(&mut self, ping: &TracedFrame<'_>, payload: &[u8]) {
        if self.pings.len() == MAX_PINGS {
            self.pings.pop_front();
        }
        self.pings.push_back(Ping {
            direction: ping.direction,
            payload: payload.to_vec(),
            time_ns: ping.time_ns,
        });
    }

    /// Nanoseconds since the ping that a pong answers. It answers all before it as well
    /// (RFC 6455, section 5.5.3).
    fn answer(&mut self, pong: &TracedFrame<'_>, payload: &[u8]) -> Option<u64> {
        let at = self
            .pings
            .iter()
            .rposition(|ping| ping.direction != pong.direction && ping.payload == payload)?;
        let asked_ns = self.pings[at].time_ns;
        let mut index = 0;
        self.pings.retain(|ping| {
            let answered = index <= at && ping.direction != pong.direction;
            index += 1;
            !answered
        });
        Some(pong.time_ns.saturating_sub(asked_ns))
    }
}

/// The payload of a control frame without its mask.
fn control_payload(seen: &TracedFrame<'_>) -> Vec<u8> {
    let Some(rest) = seen.frame.get(2..) else {
        return Vec::new();
    };
    if !seen.masked {
        return rest.to_vec();
    }
    let Some((key, payload)) = rest.split_first_chunk::<4>() else {
        return Vec::new();
    };
    payload
        .iter()
        .zip(key.iter().cycle())
        .map(|(byte, key)| byte ^ key)
        .collect()
}

fn close_payload(payload: &[u8]) -> (u16, Option<String>) {
    match payload.split_first_chunk::<2>() {
        Some((code, reason)) => (
            u16::from_be_bytes(*code),
            (!reason.is_empty()).then(|| clean(reason)),
        ),
        None => (CLOSE_NO_STATUS, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::ConnectionId;

    fn connection() -> Connection {
        Connection::new(ConnectionId {
            slot: 1,
            generation: 2,
        })
    }

    fn control(direction: Direction, first: u8, frame: &[u8], time_ns: u64) -> TracedFrame<'_> {
        let masked = frame[1] & 0x80 != 0;
        TracedFrame {
            direction,
            time_ns,
            first,
            masked,
            payload_len: u64::from(frame[1] & 0x7f),
            frame,
        }
    }

    fn rtt(record: &TraceRecord) -> Option<f64> {
        match &record.what {
            Traced::Frame { rtt_seconds, .. } => *rtt_seconds,
            _ => None,
        }
    }

    #[test]
    fn a_pong_has_the_time_since_the_ping_with_its_payload() {
        let mut connection = connection();
        let mut see = |seen| frame(&mut connection, ClockOffset::default(), false, seen);
        let ping = [0x89, 0x82, 1, 2, 3, 4, b'h' ^ 1, b'i' ^ 2];
        see(control(Direction::Received, 0x89, &ping, 1_000_000_000));
        let other = see(control(Direction::Sent, 0x8a, b"\x8a\x01x", 1_100_000_000));
        assert_eq!(rtt(&other), None);
        let pong = see(control(Direction::Sent, 0x8a, b"\x8a\x02hi", 1_500_000_000));
        assert_eq!(rtt(&pong), Some(0.5));
        let again = see(control(Direction::Sent, 0x8a, b"\x8a\x02hi", 1_600_000_000));
        assert_eq!(rtt(&again), None);
    }

    #[test]
    fn a_reason_is_shown_only_where_that_was_asked_for() {
        let close = [0x88, 0x85, 0, 0, 0, 0, 0x03, 0xe9, b'b', 0x1b, b'e'];
        for (show, expected) in [(false, None), (true, Some("b\\u{1b}e"))] {
            let mut connection = connection();
            let seen = control(Direction::Received, 0x88, &close, 5);
            let record = frame(&mut connection, ClockOffset::default(), show, seen);
            let Traced::Frame { code, reason, .. } = record.what else {
                panic!("no frame")
            };
            assert_eq!((code, reason.as_deref()), (Some(1001), expected));
        }
    }

    #[test]
    fn a_close_frame_without_a_code_has_1005() {
        let mut connection = connection();
        let seen = control(Direction::Sent, 0x88, &[0x88, 0], 5);
        let record = frame(&mut connection, ClockOffset::default(), true, seen);
        let Traced::Frame {
            code,
            opcode,
            fin,
            rsv,
            ..
        } = record.what
        else {
            panic!("no frame")
        };
        assert_eq!(
            (code, opcode.as_str(), fin, rsv),
            (Some(1005), "close", true, 0)
        );
    }

    #[test]
    fn pings_without_end_are_bounded() {
        let mut connection = connection();
        for time in 0..100 {
            let seen = control(Direction::Sent, 0x89, &[0x89, 0], time);
            frame(&mut connection, ClockOffset::default(), false, seen);
        }
        assert_eq!(connection.trace.pings.len(), MAX_PINGS);
    }
}
