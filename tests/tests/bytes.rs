//! How bytes are put on a socket, down to the byte: wsmon counts the same frames however they
//! are cut, and however the connection came to be.

use std::{
    fs::File,
    io::{IoSlice, Read as _, Seek as _, Write as _},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::{AsRawFd as _, FromRawFd as _},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use wsmon_e2e::{
    Random,
    agent::{self, Agent, Service},
    ledger::Ledger,
    port,
    process::own_name,
    program::{Kind, Scratch, Server},
    raw::{
        BINARY, CLOSE, CONTINUATION, FIN, PING, PONG, Pair, Side, TEXT, accept, connect, frame,
        header, listen, pass, pass_in_pieces, read_head, request, response,
    },
    skip,
};

/// How a connection that the client closes with 1000 ends for either end.
const CLOSED: Option<(&str, &str)> = Some(("1000.close_frame.local", "1000.close_frame.remote"));

/// A little of everything, as `side` sends it.
fn assorted(side: Side) -> Vec<u8> {
    let mut bytes = Vec::new();
    for length in [0, 1, 5, 125, 126, 127, 300] {
        bytes.extend(side.frame(FIN | TEXT, &vec![b'x'; length]));
        bytes.extend(side.frame(FIN | BINARY, &vec![0; length]));
    }
    bytes.extend(side.frame(FIN | PING, b"beat"));
    bytes.extend(side.frame(TEXT, b"one"));
    bytes.extend(side.frame(CONTINUATION, b"two"));
    bytes.extend(side.frame(FIN | PONG, b""));
    bytes.extend(side.frame(FIN | CONTINUATION, b""));
    bytes
}

fn assorted_both_ways(pair: &mut Pair) {
    for side in Side::BOTH {
        pair.write(side, &assorted(side));
    }
    pair.settle();
}

/// Closes it, the client first, and compares all that happened.
fn end_and_check(agent: &Agent, mut pair: Pair) {
    pair.close(Side::Client, 1000);
    agent.check("the end", &pair.services(CLOSED));
}

#[test]
fn every_byte_in_a_segment_of_its_own() {
    let Some(agent) = agent::shared("every_byte_in_a_segment_of_its_own") else {
        return;
    };
    let listener = listen();
    let client = connect(listener.local_addr().unwrap());
    let server = accept(&listener);
    pass_in_pieces(&client, &server, &request("/bytewise"), 1);
    pass_in_pieces(&server, &client, &response(), 1);
    let mut pair = Pair::upgraded(client, server);
    for side in Side::BOTH {
        pair.write_in_pieces(side, &assorted(side), 1);
        pair.write_in_pieces(side, &side.frame(FIN | BINARY, &vec![0; 66_000]), 1);
        pair.settle();
    }
    agent.check("bytewise", &pair.services(None));
    end_and_check(agent, pair);
}

#[test]
fn heads_split_over_packets() {
    let Some(agent) = agent::shared("heads_split_over_packets") else {
        return;
    };
    for piece in [2, 7, 64, 100] {
        let listener = listen();
        let client = connect(listener.local_addr().unwrap());
        let server = accept(&listener);
        pass_in_pieces(&client, &server, &request("/split"), piece);
        pass_in_pieces(&server, &client, &response(), piece);
        let mut pair = Pair::upgraded(client, server);
        assorted_both_ways(&mut pair);
        end_and_check(agent, pair);
    }
}

#[test]
fn frames_in_the_packet_that_carries_the_101() {
    let Some(agent) = agent::shared("frames_in_the_packet_that_carries_the_101") else {
        return;
    };
    let listener = listen();
    let client = connect(listener.local_addr().unwrap());
    let server = accept(&listener);
    pass(&client, &server, &request("/with-101"));
    let frames = assorted(Side::Server);
    pass(&server, &client, &[response(), frames.clone()].concat());
    let mut pair = Pair::upgraded(client, server);
    pair.passed_before(Side::Server, &frames);
    assorted_both_ways(&mut pair);
    end_and_check(agent, pair);
}

#[test]
fn the_101_ends_in_the_packet_that_begins_the_first_frame() {
    let name = "the_101_ends_in_the_packet_that_begins_the_first_frame";
    let Some(agent) = agent::shared(name) else {
        return;
    };
    let listener = listen();
    let client = connect(listener.local_addr().unwrap());
    let server = accept(&listener);
    pass(&client, &server, &request("/cut"));
    let frames = assorted(Side::Server);
    let all = [response(), frames.clone()].concat();
    let cut = response().len() - 2;
    pass(&server, &client, &all[..cut]);
    pass(&server, &client, &all[cut..=cut + 2]);
    pass(&server, &client, &all[cut + 3..]);
    let mut pair = Pair::upgraded(client, server);
    pair.passed_before(Side::Server, &frames);
    assorted_both_ways(&mut pair);
    end_and_check(agent, pair);
}

#[test]
fn thousands_of_frames_in_one_write() {
    let Some(agent) = agent::shared("thousands_of_frames_in_one_write") else {
        return;
    };
    let mut pair = Pair::open();
    for count in [2, 64, 300, 8000] {
        for side in Side::BOTH {
            for length in [0, 5, 130] {
                let one = side.frame(FIN | TEXT, &vec![b'x'; length]);
                pair.write(side, &one.repeat(count));
                pair.settle();
            }
        }
        agent.check(
            &format!("{count} frames in one write"),
            &pair.services(None),
        );
    }
    end_and_check(agent, pair);
}

#[test]
fn a_request_that_arrives_on_the_listening_socket() {
    let name = "a_request_that_arrives_on_the_listening_socket";
    let Some(agent) = agent::shared(name) else {
        return;
    };
    let listener = listen();
    set_tcp(&listener, libc::TCP_DEFER_ACCEPT, 10);
    let mut expected = (Ledger::new(), Ledger::new());
    for _ in 0..10 {
        let mut client = connect(listener.local_addr().unwrap());
        client.write_all(&request("/deferred")).unwrap();
        let server = accept(&listener);
        read_head(&server);
        pass(&server, &client, &response());
        let mut pair = Pair::upgraded(client, server);
        assorted_both_ways(&mut pair);
        pair.close(Side::Server, 1001);
        expected.0 += &pair
            .client_ledger()
            .with("closed.1001.close_frame.remote", 1);
        expected.1 += &pair
            .server_ledger()
            .with("closed.1001.close_frame.local", 1);
    }
    let port = listener.local_addr().unwrap().port();
    let services = [
        Service::client(own_name(), port, expected.0),
        Service::server(own_name(), port, expected.1),
    ];
    agent.check("ten deferred accepts", &services);
}

#[test]
fn a_proxy_protocol_prefix() {
    let Some(agent) = agent::shared("a_proxy_protocol_prefix") else {
        return;
    };
    let version_2 = {
        let mut prefix = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c".to_vec();
        prefix.extend_from_slice(&[192, 0, 2, 7, 192, 0, 2, 8, 0xc3, 0x50, 0x00, 0x50]);
        prefix
    };
    for prefix in [
        b"PROXY TCP4 192.0.2.7 192.0.2.8 50000 80\r\n".to_vec(),
        version_2,
    ] {
        for apart in [false, true] {
            let listener = listen();
            let client = connect(listener.local_addr().unwrap());
            let server = accept(&listener);
            if apart {
                pass(&client, &server, &prefix);
                pass(&client, &server, &request("/proxied"));
            } else {
                pass(
                    &client,
                    &server,
                    &[prefix.clone(), request("/proxied")].concat(),
                );
            }
            pass(&server, &client, &response());
            let mut pair = Pair::upgraded(client, server);
            assorted_both_ways(&mut pair);
            end_and_check(agent, pair);
        }
    }
}

#[test]
fn ipv6_and_ipv4_mapped_addresses() {
    let Some(agent) = agent::shared("ipv6_and_ipv4_mapped_addresses") else {
        return;
    };
    for mapped in [false, true] {
        let port = port::free();
        let Ok(listener) = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)) else {
            return skip("ipv6_and_ipv4_mapped_addresses", "this host has no IPv6");
        };
        let address: SocketAddr = if mapped {
            (Ipv4Addr::LOCALHOST, port).into()
        } else {
            (Ipv6Addr::LOCALHOST, port).into()
        };
        let client = connect(address);
        let server = accept(&listener);
        pass(&client, &server, &request("/six"));
        pass(&server, &client, &response());
        let mut pair = Pair::upgraded(client, server);
        assorted_both_ways(&mut pair);
        end_and_check(agent, pair);
    }
}

#[test]
fn an_upgrade_on_a_connection_that_served_plain_http_before() {
    let name = "an_upgrade_on_a_connection_that_served_plain_http_before";
    let Some(agent) = agent::shared(name) else {
        return;
    };
    for kind in [Kind::Node, Kind::Aiohttp, Kind::Nginx] {
        if kind.missing().is_some() {
            continue;
        }
        let mut server = Server::start(kind);
        let mut client = connect((Ipv4Addr::LOCALHOST, server.port).into());
        for _ in 0..3 {
            client
                .write_all(b"GET /plain HTTP/1.1\r\nHost: localhost\r\n\r\n")
                .unwrap();
            let head = read_head(&client);
            assert!(head.starts_with("HTTP/1.1 200"), "{head}");
            let length = head.lines().find_map(|line| {
                line.to_lowercase()
                    .strip_prefix("content-length: ")?
                    .parse()
                    .ok()
            });
            let body = length.unwrap_or(0)
                + if head.contains("chunked") {
                    6 + 3 + 2 + 5
                } else {
                    0
                };
            client.read_exact(&mut vec![0; body]).unwrap();
        }
        client.write_all(&request("/after-plain")).unwrap();
        assert!(read_head(&client).starts_with("HTTP/1.1 101"));
        let hello = frame(FIN | TEXT, true, b"hello");
        client.write_all(&hello).unwrap();
        client.read_exact(&mut vec![0; hello.len() - 4]).unwrap();
        let (process, truth) = (server.process.name(), server.ledger());
        let passed = |ledger: &Ledger| {
            ledger
                .only(&["sent.", "received."])
                .with("handshakes.accepted.101", 1)
        };
        let services = [
            Service::server(process, server.port, passed(&truth)),
            Service::client(own_name(), server.port, passed(&truth.mirrored())),
        ];
        agent.check(&format!("{kind:?}"), &services);
    }
}

#[test]
fn a_header_cut_anywhere() {
    let Some(agent) = agent::shared("a_header_cut_anywhere") else {
        return;
    };
    let mut pair = Pair::open();
    for side in Side::BOTH {
        for length in [1, 126, 65_536] {
            let bytes = side.frame(FIN | BINARY, &vec![7; length]);
            let payload = bytes.len() - length;
            for cut in 1..=payload {
                for part in [&bytes[..cut], &bytes[cut..]] {
                    pair.write(side, part);
                    pair.settle();
                }
            }
        }
        // Control frames too: code and reason, and what ties a pong to its ping.
        let ping = side.frame(FIN | PING, b"0123456789");
        for cut in 1..ping.len() {
            pair.write(side, &ping[..cut]);
            pair.settle();
            pair.write(side, &ping[cut..]);
            pair.settle();
        }
    }
    agent.check("every cut", &pair.services(None));
    end_and_check(agent, pair);
}

#[test]
fn an_mptcp_listener_with_a_tcp_client() {
    let name = "an_mptcp_listener_with_a_tcp_client";
    let Some(agent) = agent::shared(name) else {
        return;
    };
    // What Go listens with.
    let Some(listener) = listen_mptcp() else {
        return skip(name, "this kernel has no MPTCP");
    };
    let mut pair = Pair::open_at(&listener);
    assorted_both_ways(&mut pair);
    end_and_check(agent, pair);
}

#[test]
fn random_frames_in_random_pieces() {
    let Some(agent) = agent::shared("random_frames_in_random_pieces") else {
        return;
    };
    for seed in 1..=8 {
        let mut random = Random::new(seed);
        let mut pair = Pair::open();
        let mut under_way = [false; 2];
        for _ in 0..60 {
            for (side, fragmented) in Side::BOTH.into_iter().zip(&mut under_way) {
                let count = 1 + random.below(40);
                let bytes: Vec<u8> = (0..count)
                    .flat_map(|_| random_frame(side, fragmented, &mut random))
                    .collect();
                let mut rest = &bytes[..];
                while !rest.is_empty() {
                    let most = [3, 20, 200, 5000, 100_000][random.below(5)];
                    let (piece, after) = rest.split_at(rest.len().min(1 + random.below(most)));
                    pair.write(side, piece);
                    rest = after;
                }
            }
            // Now and then all of it is read before more is written.
            if random.below(4) == 0 {
                pair.settle();
            }
        }
        pair.settle();
        agent.check(&format!("seed {seed}"), &pair.services(None));
    }
}

/// A legal frame; `fragmented` while a message is under way.
fn random_frame(side: Side, fragmented: &mut bool, random: &mut Random) -> Vec<u8> {
    if random.below(5) == 0 {
        let first = FIN | if random.below(2) == 0 { PING } else { PONG };
        return side.frame(first, &vec![b'c'; random.below(126)]);
    }
    let most = [2, 130, 1000, 70_000][random.below(4)];
    let payload = vec![random.below(256) as u8; random.below(most)];
    let opcode = match (*fragmented, random.below(2)) {
        (true, _) => CONTINUATION,
        (false, 0) => TEXT,
        (false, _) => BINARY,
    };
    *fragmented = random.below(3) == 0;
    side.frame(if *fragmented { opcode } else { FIN | opcode }, &payload)
}

#[test]
fn header_names_and_values_in_any_case() {
    let Some(agent) = agent::shared("header_names_and_values_in_any_case") else {
        return;
    };
    let listener = listen();
    let client = connect(listener.local_addr().unwrap());
    let server = accept(&listener);
    let request = b"GET /case HTTP/1.1\r\nhost:localhost\r\nUPGRADE:  WebSocket \r\n\
        connection: keep-alive , upgrade\r\nsec-websocket-key:dGhlIHNhbXBsZSBub25jZQ==\r\n\
        SEC-WEBSOCKET-VERSION: 13\r\n\r\n";
    let response = b"HTTP/1.1 101 ok\r\nsec-websocket-accept:s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\
        upgrade:WEBSOCKET\r\nCONNECTION:UPGRADE\r\n\r\n";
    pass(&client, &server, request);
    pass(&server, &client, response);
    let mut pair = Pair::upgraded(client, server);
    assorted_both_ways(&mut pair);
    end_and_check(agent, pair);
}

#[test]
fn a_frame_of_nearly_2_to_the_63_bytes() {
    let Some(agent) = agent::shared("a_frame_of_nearly_2_to_the_63_bytes") else {
        return;
    };
    let mut pair = Pair::open();
    let bytes = [header(FIN | BINARY, true, u64::MAX >> 1), vec![0; 1000]].concat();
    pair.write(Side::Client, &bytes);
    pair.settle();
    pair.hang_up(Side::Client);
    pair.server.await_end();
    pair.hang_up(Side::Server);
    // What was declared did not pass.
    let passed = Ledger::new().with("frames.binary", 1).with("payload", 1000);
    let services = [
        ("client", "sent", "local"),
        ("server", "received", "remote"),
    ]
    .map(|(role, direction, initiator)| Service {
        role,
        process: own_name(),
        port: pair.port,
        expected: Ledger::new()
            .with(
                &format!("{direction}.frames.binary"),
                passed.get("frames.binary"),
            )
            .with(&format!("{direction}.payload"), passed.get("payload"))
            .with("handshakes.accepted.101", 1)
            .with(&format!("closed.1006.fin.{initiator}"), 1),
    });
    agent.check("a frame that never ends", &services);
}

#[test]
fn five_gigabytes_in_frames_of_one() {
    const SIZE: u64 = 1 << 30;
    const COUNT: u64 = 5;
    let Some(agent) = agent::shared("five_gigabytes_in_frames_of_one") else {
        return;
    };
    let listener = listen();
    let client = connect(listener.local_addr().unwrap());
    let server = accept(&listener);
    pass(&client, &server, &request("/large"));
    pass(&server, &client, &response());
    let mut pair = Pair::upgraded(client, server);
    let block = vec![0; 1 << 20];
    for _ in 0..COUNT {
        pair.client
            .stream
            .write_all(&header(FIN | BINARY, true, SIZE))
            .unwrap();
        for _ in 0..SIZE >> 20 {
            pair.client.stream.write_all(&block).unwrap();
        }
    }
    // The sequence numbers have gone round; small frames behind it are seen as ever.
    assorted_both_ways(&mut pair);
    let mut services = pair.services(None);
    for (service, direction) in services.iter_mut().zip(["sent", "received"]) {
        service
            .expected
            .add(&format!("{direction}.frames.binary"), COUNT);
        service
            .expected
            .add(&format!("{direction}.messages.binary"), COUNT);
        service
            .expected
            .add(&format!("{direction}.payload"), COUNT * SIZE);
    }
    agent.check("five frames of a gigabyte", &services);
}

#[test]
fn msg_more_writev_and_empty_writes() {
    let Some(agent) = agent::shared("msg_more_writev_and_empty_writes") else {
        return;
    };
    let mut pair = Pair::open();
    for side in Side::BOTH {
        for length in [5usize, 126, 70_000] {
            let bytes = side.frame(FIN | BINARY, &vec![1; length]);
            let (head, payload) = bytes.split_at(bytes.len() - length);
            // Header and payload in two calls that TCP joins.
            send(&pair.end(side).stream, head, libc::MSG_MORE);
            send(&pair.end(side).stream, payload, 0);
            pair.wrote(side, &bytes);
            // One writev with empty parts before, between and after.
            let parts = [&[][..], head, &[][..], payload, &[][..]].map(IoSlice::new);
            let written = pair.end(side).stream.write_vectored(&parts).unwrap();
            pair.wrote(side, &bytes[..written]);
            pair.write(side, &bytes[written..]);
            send(&pair.end(side).stream, &[], 0);
        }
        pair.settle();
    }
    agent.check("MSG_MORE and writev", &pair.services(None));
    end_and_check(agent, pair);
}

#[test]
fn payload_by_sendfile_and_splice() {
    const LENGTH: usize = 100_000;
    let Some(agent) = agent::shared("payload_by_sendfile_and_splice") else {
        return;
    };
    let folder = Scratch::new("sendfile");
    std::fs::write(folder.path().join("payload"), vec![9; LENGTH]).unwrap();
    let mut file = File::open(folder.path().join("payload")).unwrap();
    let mut pair = Pair::open();
    for side in Side::BOTH {
        let head = header(FIN | BINARY, side == Side::Client, LENGTH as u64);
        let frame = [head.clone(), vec![9; LENGTH]].concat();

        pair.end(side).stream.write_all(&head).unwrap();
        file.rewind().unwrap();
        let mut left = LENGTH;
        while left > 0 {
            let socket = pair.end(side).stream.as_raw_fd();
            // SAFETY: two open descriptors and no pointer.
            let sent =
                unsafe { libc::sendfile(socket, file.as_raw_fd(), std::ptr::null_mut(), left) };
            assert!(sent > 0, "sendfile: {}", std::io::Error::last_os_error());
            left -= sent as usize;
        }
        pair.wrote(side, &frame);

        pair.end(side).stream.write_all(&head).unwrap();
        file.rewind().unwrap();
        splice(&file, &pair.end(side).stream, LENGTH);
        pair.wrote(side, &frame);
        pair.settle();
    }
    agent.check("sendfile and splice", &pair.services(None));
    end_and_check(agent, pair);
}

#[test]
fn two_threads_that_send_on_one_socket() {
    const EACH: u64 = 30_000;
    /// Far below what the socket takes: no write blocks, so every frame is written whole.
    const UNDER_WAY: u64 = 100_000;
    let Some(agent) = agent::shared("two_threads_that_send_on_one_socket") else {
        return;
    };
    let mut pair = Pair::open();
    for side in Side::BOTH {
        let other = if side == Side::Client {
            Side::Server
        } else {
            Side::Client
        };
        let arrived = pair.end(other).arrived();
        let (before, written) = (arrived.load(Ordering::Acquire), AtomicU64::new(0));
        let frames: Vec<Vec<u8>> = (0..4)
            .map(|number| side.frame(FIN | TEXT, &vec![b'y'; 20 + number * 35]))
            .collect();
        let stream = &pair.end(side).stream;
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut stream = stream;
                    for number in 0..EACH {
                        let frame = &frames[number as usize % frames.len()];
                        let under_way = |written: u64| {
                            (before + written).saturating_sub(arrived.load(Ordering::Acquire))
                        };
                        while under_way(written.load(Ordering::Relaxed)) > UNDER_WAY {
                            thread::yield_now();
                        }
                        written.fetch_add(frame.len() as u64, Ordering::Relaxed);
                        assert_eq!(stream.write(frame).unwrap(), frame.len());
                    }
                });
            }
        });
        for frame in &frames {
            for _ in 0..2 * EACH / frames.len() as u64 {
                pair.wrote(side, frame);
            }
        }
        pair.settle();
        accounts(agent, &pair);
    }
}

/// Every frame is counted, or its bytes are accounted for as unsynced: two threads put segments
/// on the wire out of order. All frames are text and shorter than 126 bytes.
fn accounts(agent: &Agent, pair: &Pair) {
    if agent.is_absent() {
        return;
    }
    for (role, truth) in [
        ("client", pair.client_ledger()),
        ("server", pair.server_ledger()),
    ] {
        for way in ["sent", "received"] {
            let all = truth.get(&format!("{way}.wire"));
            let view = wsmon_e2e::within(Duration::from_secs(10), || {
                let rows = agent.connections(pair.port);
                let row = rows
                    .into_iter()
                    .find(|row| row["role"] == role)
                    .ok_or("no row")?;
                let wire = row[way]["wire_bytes"].as_u64();
                if wire == Some(all) {
                    Ok(row[way].clone())
                } else {
                    Err(format!("{wire:?}"))
                }
            });
            let count = |name: &str| view[name].as_u64().expect("a count");
            let frames = view["frames"]["text"].as_u64().expect("a count");
            let header = if (role == "client") == (way == "sent") {
                6
            } else {
                2
            };
            let (payload, unsynced) = (count("payload_bytes"), count("unsynced_bytes"));
            assert_eq!(
                payload + frames * header + unsynced,
                all,
                "{role} {way}: {view:#}"
            );
            assert!(
                unsynced == 0 || way == "received",
                "what is sent passes in order: {view:#}"
            );
            if unsynced == 0 {
                assert_eq!(
                    frames,
                    truth.get(&format!("{way}.frames.text")),
                    "{role} {way}"
                );
            } else {
                println!("{role} {way}: {unsynced} of {all} bytes unsynced");
            }
        }
    }
}

#[test]
fn how_a_connection_ends() {
    let Some(agent) = agent::shared("how_a_connection_ends") else {
        return;
    };
    // Nobody says a word.
    for (side, ends) in [
        (Side::Client, ("1006.fin.local", "1006.fin.remote")),
        (Side::Server, ("1006.fin.remote", "1006.fin.local")),
    ] {
        let mut pair = Pair::open();
        assorted_both_ways(&mut pair);
        let other = if side == Side::Client {
            Side::Server
        } else {
            Side::Client
        };
        pair.hang_up(side);
        pair.end(other).await_end();
        pair.hang_up(other);
        agent.check_ends(&pair, ends);
    }
    // A reset.
    for (side, ends) in [
        (Side::Client, ("1006.reset.local", "1006.reset.remote")),
        (Side::Server, ("1006.reset.remote", "1006.reset.local")),
    ] {
        let mut pair = Pair::open();
        assorted_both_ways(&mut pair);
        reset(&pair.end(side).stream);
        agent.check_ends(&pair, ends);
    }
    // A Close frame without a code.
    let mut pair = Pair::open();
    for side in Side::BOTH {
        pair.write(side, &side.frame(FIN | CLOSE, b""));
        pair.settle();
    }
    pair.hang_up(Side::Server);
    pair.hang_up(Side::Client);
    agent.check_ends(&pair, ("1005.close_frame.local", "1005.close_frame.remote"));
    // Codes, and one that none may send.
    for (code, label) in [
        (1012, "1012"),
        (1014, "1014"),
        (3000, "3000"),
        (3999, "app_3xxx"),
        (4999, "app_4xxx"),
    ] {
        let mut pair = Pair::open();
        pair.close(Side::Server, code);
        let ends = (
            format!("{label}.close_frame.remote"),
            format!("{label}.close_frame.local"),
        );
        agent.check_ends(&pair, (&ends.0, &ends.1));
    }
}

/// The RST leaves after the socket has given its port back.
#[test]
fn a_socket_that_is_closed_with_a_reset() {
    let Some(agent) = agent::shared("a_socket_that_is_closed_with_a_reset") else {
        return;
    };
    for (closes, client_says, server_says) in [
        (Side::Client, "local", "remote"),
        (Side::Server, "remote", "local"),
    ] {
        let listener = listen();
        let client = connect(listener.local_addr().unwrap());
        let server = accept(&listener);
        pass(&client, &server, &request("/reset"));
        pass(&server, &client, &response());
        let (first, last) = match closes {
            Side::Client => (client, server),
            Side::Server => (server, client),
        };
        linger_nothing(&first);
        drop(first);
        let port = listener.local_addr().unwrap().port().to_string();
        if !agent.is_absent() {
            wsmon_e2e::within(Duration::from_secs(10), || {
                let page = agent.metrics();
                for (role, initiator) in [("client", client_says), ("server", server_says)] {
                    let labels = [
                        ("port", port.as_str()),
                        ("role", role),
                        ("code", "1006"),
                        ("cause", "reset"),
                        ("initiator", initiator),
                    ];
                    if page.count("wsmon_connections_closed_total", &labels) != 1 {
                        return Err(format!("the {role} was not reset by {initiator}"));
                    }
                }
                Ok(())
            });
        }
        drop(last);
    }
}

/// Lets `close` send a RST at once.
fn linger_nothing(stream: &TcpStream) {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    // SAFETY: the structure is as long as said.
    let result = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of_val(&linger) as libc::socklen_t,
        )
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

#[test]
fn one_socket_that_connects_twice() {
    let Some(agent) = agent::shared("one_socket_that_connects_twice") else {
        return;
    };
    let listener = listen();
    let client = connect(listener.local_addr().unwrap());
    let mut expected = (Ledger::new(), Ledger::new());
    for round in 0..2 {
        if round > 0 {
            connect_again(&client, listener.local_addr().unwrap());
        }
        let server = accept(&listener);
        pass(&client, &server, &request("/again"));
        pass(&server, &client, &response());
        let hello = Side::Client.frame(FIN | TEXT, b"hello");
        pass(&client, &server, &hello);
        let hello = Side::Server.frame(FIN | TEXT, b"hello");
        pass(&server, &client, &hello);
        disconnect(&client);
        for (ledger, initiator) in [(&mut expected.0, "local"), (&mut expected.1, "remote")] {
            for direction in ["sent", "received"] {
                ledger.add(&format!("{direction}.frames.text"), 1);
                ledger.add(&format!("{direction}.messages.text"), 1);
                ledger.add(&format!("{direction}.payload"), 5);
            }
            ledger.add("handshakes.accepted.101", 1);
            ledger.add(&format!("closed.1006.reset.{initiator}"), 1);
        }
    }
    let port = listener.local_addr().unwrap().port();
    let services = [
        Service::client(own_name(), port, expected.0),
        Service::server(own_name(), port, expected.1),
    ];
    agent.check("two connections of one socket", &services);
}

#[test]
fn handshakes_that_come_to_nothing() {
    let Some(agent) = agent::shared("handshakes_that_come_to_nothing") else {
        return;
    };
    // Closed before an answer.
    let listener = listen();
    let client = connect(listener.local_addr().unwrap());
    let server = accept(&listener);
    pass(&client, &server, &request("/aborted"));
    drop(client);
    drop(server);
    let port = listener.local_addr().unwrap().port();
    check_handshake(agent, port, "aborted");
    // The wrong accept key.
    let listener = listen();
    let client = connect(listener.local_addr().unwrap());
    let server = accept(&listener);
    pass(&client, &server, &request("/invalid"));
    let wrong = String::from_utf8(response())
        .unwrap()
        .replace("s3pP", "AAAA");
    pass(&server, &client, wrong.as_bytes());
    drop(client);
    drop(server);
    let port = listener.local_addr().unwrap().port();
    check_handshake(agent, port, "invalid");
}

/// One handshake, of this result and no other, at either end.
fn check_handshake(agent: &Agent, port: u16, result: &str) {
    if agent.is_absent() {
        return;
    }
    wsmon_e2e::within(Duration::from_secs(10), || {
        let page = agent.metrics();
        let port = port.to_string();
        for role in ["client", "server"] {
            let labels = [("port", port.as_str()), ("role", role)];
            let all = page.count("wsmon_handshakes_total", &labels);
            let of_it = page.count(
                "wsmon_handshakes_total",
                &[labels[0], labels[1], ("result", result)],
            );
            if (all, of_it) != (1, 1) {
                let seen: Vec<_> = page
                    .select("wsmon_handshakes_total", &labels)
                    .filter(|sample| sample.value > 0.0)
                    .collect();
                return Err(format!("{role}: one is {result}; seen {seen:#?}"));
            }
        }
        Ok(())
    });
}

trait CheckEnds {
    fn check_ends(&self, pair: &Pair, ends: (&str, &str));
}

impl CheckEnds for Agent {
    fn check_ends(&self, pair: &Pair, ends: (&str, &str)) {
        self.check(&format!("{ends:?}"), &pair.services(Some(ends)));
    }
}

fn set_tcp(listener: &TcpListener, option: libc::c_int, value: libc::c_int) {
    // SAFETY: an open socket, and a value of the length given.
    let result = unsafe {
        libc::setsockopt(
            listener.as_raw_fd(),
            libc::IPPROTO_TCP,
            option,
            (&raw const value).cast(),
            size_of_val(&value) as libc::socklen_t,
        )
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

fn listen_mptcp() -> Option<TcpListener> {
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: port::free().to_be(),
        sin_addr: libc::in_addr {
            s_addr: u32::from(Ipv4Addr::LOCALHOST).to_be(),
        },
        sin_zero: [0; 8],
    };
    // SAFETY: the address is as long as said; the descriptor is checked before it is owned.
    unsafe {
        let socket = libc::socket(
            libc::AF_INET,
            libc::SOCK_STREAM | libc::SOCK_CLOEXEC,
            libc::IPPROTO_MPTCP,
        );
        if socket < 0 {
            return None;
        }
        let listener = TcpListener::from_raw_fd(socket);
        let length = size_of_val(&address) as libc::socklen_t;
        let ready = libc::bind(socket, (&raw const address).cast(), length) == 0
            && libc::listen(socket, 16) == 0;
        ready.then_some(listener)
    }
}

fn send(stream: &TcpStream, mut bytes: &[u8], flags: libc::c_int) {
    loop {
        // SAFETY: the buffer is as long as said.
        let sent = unsafe {
            libc::send(
                stream.as_raw_fd(),
                bytes.as_ptr().cast(),
                bytes.len(),
                flags,
            )
        };
        assert!(sent >= 0, "send: {}", std::io::Error::last_os_error());
        bytes = &bytes[sent as usize..];
        if bytes.is_empty() {
            return;
        }
    }
}

/// File → pipe → socket, no user buffer in between.
fn splice(file: &File, stream: &TcpStream, mut length: usize) {
    let (reader, writer) = std::io::pipe().unwrap();
    while length > 0 {
        let step = |from: i32, to: i32, length: usize| {
            // SAFETY: open descriptors; no offsets.
            let moved = unsafe {
                libc::splice(
                    from,
                    std::ptr::null_mut(),
                    to,
                    std::ptr::null_mut(),
                    length,
                    0,
                )
            };
            assert!(moved > 0, "splice: {}", std::io::Error::last_os_error());
            moved as usize
        };
        let mut piped = step(file.as_raw_fd(), writer.as_raw_fd(), length.min(1 << 16));
        length -= piped;
        while piped > 0 {
            piped -= step(reader.as_raw_fd(), stream.as_raw_fd(), piped);
        }
    }
}

/// The next close of the socket sends a RST; this is it, for all its descriptors.
fn reset(stream: &TcpStream) {
    disconnect(stream);
}

/// `connect(AF_UNSPEC)`: TCP ends the connection with a RST and keeps the socket.
fn disconnect(stream: &TcpStream) {
    let address = libc::sockaddr {
        sa_family: libc::AF_UNSPEC as u16,
        sa_data: [0; 14],
    };
    // SAFETY: the address is as long as said.
    let result = unsafe {
        libc::connect(
            stream.as_raw_fd(),
            &raw const address,
            size_of_val(&address) as libc::socklen_t,
        )
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

fn connect_again(stream: &TcpStream, address: SocketAddr) {
    let SocketAddr::V4(address) = address else {
        panic!("IPv4 only")
    };
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr {
            s_addr: u32::from(*address.ip()).to_be(),
        },
        sin_zero: [0; 8],
    };
    // SAFETY: the address is as long as said.
    let result = unsafe {
        libc::connect(
            stream.as_raw_fd(),
            (&raw const address).cast(),
            size_of_val(&address) as libc::socklen_t,
        )
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}
