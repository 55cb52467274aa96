//! What nobody should send: it is named where it is a protocol error, counted nowhere where TCP
//! would not take it, and never disturbs the agent or the connection next to it.

use std::{fmt::Write as _, io::Write as _, time::Duration};

use wsmon_e2e::{
    Random,
    agent::{self, Agent, Service},
    forge::{self, Segment},
    ledger::Ledger,
    process::own_name,
    raw::{
        BINARY, CLOSE, CONTINUATION, FIN, PING, Pair, RSV1, RSV2, Side, TEXT, accept, connect,
        frame, header, listen, pass, request, response,
    },
    skip, within,
};

/// A connection that behaves, open all the while.
struct Bystander(Pair);

impl Bystander {
    fn open() -> Self {
        let mut bystander = Self(Pair::open());
        bystander.talk();
        bystander
    }

    fn talk(&mut self) {
        for side in Side::BOTH {
            self.0.write(side, &side.frame(FIN | TEXT, b"all is well"));
        }
        self.0.settle();
    }

    /// It goes on, and is counted to the last frame.
    fn check(mut self, agent: &Agent) {
        self.talk();
        agent.check("the connection next to it", &self.0.services(None));
        self.0.close(Side::Client, 1000);
        let ends = ("1000.close_frame.local", "1000.close_frame.remote");
        agent.check("the connection next to it", &self.0.services(Some(ends)));
    }
}

/// Each in a frame of `side`; the boundary stays known behind all of them.
fn violations(side: Side) -> Vec<(&'static str, Vec<u8>)> {
    let masked = side == Side::Client;
    let overlong = |extended: &[u8]| {
        let mut bytes = header(FIN | TEXT, masked, 5);
        bytes[1] = bytes[1] & 0x80 | if extended.len() == 2 { 126 } else { 127 };
        bytes.splice(2..2, extended.iter().copied());
        bytes.extend_from_slice(b"short");
        bytes
    };
    vec![
        ("reserved_opcode", side.frame(FIN | 3, b"three")),
        ("reserved_opcode", side.frame(FIN | 15, b"")),
        ("reserved_bits", side.frame(FIN | RSV2 | TEXT, b"rsv2")),
        (
            "reserved_bits",
            side.frame(FIN | RSV1 | TEXT, b"rsv1 without an extension"),
        ),
        (
            "masking",
            frame(FIN | TEXT, !masked, b"the other way round"),
        ),
        ("control_too_long", side.frame(FIN | PING, &[b'p'; 126])),
        ("control_fragmented", side.frame(PING, b"more to come")),
        (
            "unexpected_continuation",
            side.frame(FIN | CONTINUATION, b"of what?"),
        ),
        (
            "interleaved_message",
            [side.frame(TEXT, b"one"), side.frame(FIN | BINARY, b"two")].concat(),
        ),
        ("overlong_length", overlong(&[0, 5])),
        ("overlong_length", overlong(&[0, 0, 0, 0, 0, 0, 0, 5])),
        ("close_too_short", side.frame(FIN | CLOSE, &[3])),
        ("close_code", side.close(999, "")),
        ("close_code", side.close(1005, "not on the wire")),
        ("close_code", side.close(1006, "nor this")),
        (
            "misplaced_rsv1",
            side.frame(FIN | RSV1 | PING, b"compressed?"),
        ),
        (
            "after_close",
            [
                side.close(1000, ""),
                side.frame(FIN | TEXT, b"one more thing"),
            ]
            .concat(),
        ),
    ]
}

#[test]
fn each_protocol_error_is_counted_by_its_kind() {
    let Some(agent) = agent::shared("each_protocol_error_is_counted_by_its_kind") else {
        return;
    };
    let bystander = Bystander::open();
    let (mut told, mut expected, mut pairs) = (String::new(), Vec::new(), Vec::new());
    for side in Side::BOTH {
        for (kind, bytes) in violations(side) {
            let mut pair = Pair::open();
            pair.write(side, &bytes);
            // What comes behind it in the other direction is as good as ever.
            let other = if side == Side::Client {
                Side::Server
            } else {
                Side::Client
            };
            pair.write(other, &other.frame(FIN | TEXT, b"what was that?"));
            pair.settle();
            let mut services = pair.services_with(&format!("errors.{kind}"));
            for service in &mut services {
                // Nothing was negotiated: RSV1 does not say that a message is compressed.
                service.expected = service.expected.without("compressed");
            }
            let _ = writeln!(
                told,
                "port {}: {kind} by the {side:?}: {bytes:02x?}",
                pair.port
            );
            expected.extend(services);
            pairs.push(pair);
        }
    }
    agent.check(&told, &expected);
    bystander.check(agent);
}

#[test]
fn a_length_with_the_top_bit_set() {
    let Some(agent) = agent::shared("a_length_with_the_top_bit_set") else {
        return;
    };
    let bystander = Bystander::open();
    for side in Side::BOTH {
        let mut pair = Pair::open();
        pair.write(side, &side.frame(FIN | TEXT, b"before"));
        let services = pair.services_with("errors.length_top_bit");
        // The boundary is lost with it: it is no frame, and neither is what follows.
        let lost = [
            header(FIN | BINARY, side == Side::Client, 1 << 63),
            vec![0xff; 50],
        ]
        .concat();
        (&pair.end(side).stream).write_all(&lost).unwrap();
        agent.check(&format!("by the {side:?}"), &services);
        if !agent.is_absent() {
            let rows = agent.connections(pair.port);
            let unsynced = rows.iter().flat_map(|row| {
                ["sent", "received"].map(|way| row[way]["unsynced_bytes"].as_u64().unwrap_or(0))
            });
            assert_eq!(unsynced.sum::<u64>(), 2 * lost.len() as u64, "{rows:#?}");
        }
    }
    bystander.check(agent);
}

#[test]
fn garbage_after_the_101() {
    let Some(agent) = agent::shared("garbage_after_the_101") else {
        return;
    };
    let bystander = Bystander::open();
    let mut random = Random::new(7);
    for text in [false, true] {
        let listener = listen();
        let client = connect(listener.local_addr().unwrap());
        let server = accept(&listener);
        pass(&client, &server, &request("/garbage"));
        pass(&server, &client, &response());
        for _ in 0..100 {
            let bytes: Vec<u8> = if text {
                b"GET /again HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec()
            } else {
                let mut noise: Vec<u8> = (0..997).map(|_| random.below(256) as u8).collect();
                // A reserved opcode, so that the first header is wrong for sure.
                noise[..2].copy_from_slice(&[0xff, 0x05]);
                noise
            };
            pass(&client, &server, &bytes);
            pass(&server, &client, &bytes);
        }
        if !agent.is_absent() {
            let port = listener.local_addr().unwrap().port();
            for row in agent.connections(port) {
                for way in ["sent", "received"] {
                    let of = |name: &str| row[way][name].as_u64().expect("a count");
                    assert!(
                        of("payload_bytes") + of("unsynced_bytes") <= of("wire_bytes"),
                        "{row}"
                    );
                }
            }
            let port = port.to_string();
            within(Duration::from_secs(5), || {
                let labels = [("port", port.as_str()), ("kind", "reserved_opcode")];
                match agent
                    .metrics()
                    .count("wsmon_protocol_errors_total", &labels)
                {
                    0 => Err("garbage is a protocol error".to_owned()),
                    _ => Ok(()),
                }
            });
        }
    }
    bystander.check(agent);
}

#[test]
fn segments_that_tcp_does_not_take() {
    let name = "segments_that_tcp_does_not_take";
    let Some(agent) = agent::shared(name) else {
        return;
    };
    let bystander = Bystander::open();
    let mut pair = Pair::open();
    for side in Side::BOTH {
        pair.write(side, &side.frame(FIN | TEXT, b"genuine"));
    }
    pair.settle();
    for side in Side::BOTH {
        let other = if side == Side::Client {
            Side::Server
        } else {
            Side::Client
        };
        let payload = side.frame(FIN | BINARY, b"forged").repeat(10);
        for (distance, checksum_is_right) in [
            (900_000_000, true),
            (-900_000_000, true),
            (0, false),
            (2000, false),
        ] {
            let sequences = (
                forge::next_sequence(&pair.end(side).stream),
                forge::next_sequence(&pair.end(other).stream),
            );
            let (Ok(sequence), Ok(acknowledged)) = sequences else {
                return skip(name, "TCP_REPAIR needs CAP_NET_ADMIN");
            };
            let segment = Segment {
                sequence: sequence.wrapping_add_signed(distance),
                acknowledged,
                payload: &payload,
                checksum_is_right,
            };
            if let Err(error) = forge::send(&pair.end(side).stream, &segment) {
                return skip(name, &format!("no raw socket: {error}"));
            }
            // The genuine stream goes on from where it was, past what was forged ahead of it.
            for _ in 0..100 {
                pair.write(side, &side.frame(FIN | TEXT, &[b'g'; 100]));
            }
            pair.settle();
            agent.check(
                &format!("{side:?}, {distance} off, checksum right: {checksum_is_right}"),
                &pair.services(None),
            );
        }
    }
    bystander.check(agent);
}

#[test]
fn a_request_head_that_never_ends() {
    let Some(agent) = agent::shared("a_request_head_that_never_ends") else {
        return;
    };
    let bystander = Bystander::open();
    let listener = listen();
    let client = connect(listener.local_addr().unwrap());
    let server = accept(&listener);
    let start = b"GET /endless HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nX-Filler: ";
    pass(&client, &server, start);
    for _ in 0..64 {
        pass(&client, &server, &[b'a'; 16_384]);
    }
    drop(client);
    drop(server);
    let port = listener.local_addr().unwrap().port();
    if !agent.is_absent() {
        let labels = [("port", port.to_string())];
        let labels = labels
            .each_ref()
            .map(|(name, value)| (*name, value.as_str()));
        let accepted = [labels[0], ("result", "accepted")];
        assert_eq!(
            agent.metrics().count("wsmon_handshakes_total", &accepted),
            0
        );
        assert_eq!(agent.metrics().count("wsmon_frames_total", &labels), 0);
    }
    bystander.check(agent);
}

#[test]
fn sixty_four_kilobytes_of_request_head() {
    let Some(agent) = agent::shared("sixty_four_kilobytes_of_request_head") else {
        return;
    };
    let bystander = Bystander::open();
    for first in [true, false] {
        let listener = listen();
        let client = connect(listener.local_addr().unwrap());
        let server = accept(&listener);
        let mut head = String::from_utf8(request("/large-head")).unwrap();
        let filler = format!("X-Filler: {}\r\n", "f".repeat(1024)).repeat(64);
        // Before or behind the lines that matter.
        let at = if first {
            head.find("Host:")
        } else {
            head.rfind("\r\n")
        }
        .unwrap();
        head.insert_str(at, &filler);
        pass(&client, &server, head.as_bytes());
        pass(&server, &client, &response());
        let mut pair = Pair::upgraded(client, server);
        for side in Side::BOTH {
            pair.write(side, &side.frame(FIN | TEXT, b"after a large head"));
        }
        pair.settle();
        // All of it or none of it: a connection is never half-tracked.
        let nothing = |role| Service {
            role,
            process: own_name(),
            port: pair.port,
            expected: Ledger::new(),
        };
        if let Some(difference) = agent.differs(&pair.services(None))
            && agent
                .differs(&[nothing("client"), nothing("server")])
                .is_some()
        {
            panic!("half-tracked, filler first: {first}\n{difference}");
        }
    }
    bystander.check(agent);
}
