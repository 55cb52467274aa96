//! As fast as the machine can: the counts are equal, and no event is lost.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
    process::Command,
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use wsmon_e2e::{
    agent::{self, Agent, Service},
    ledger::Ledger,
    port,
    process::{Process, own_name, raise_open_files},
    program::binary,
    raw::{BINARY, FIN, Side, TEXT, connect, read_head, request},
};

/// Bytes of payload in a frame.
const SIZE: usize = 32;

#[test]
fn ten_million_frames_each_in_a_send_of_its_own() {
    flood(
        "ten_million_frames_each_in_a_send_of_its_own",
        "each",
        1,
        5_000_000,
    );
}

#[test]
fn twenty_million_frames_with_64_to_a_send() {
    flood(
        "twenty_million_frames_with_64_to_a_send",
        "drained",
        64,
        10_000_000,
    );
}

/// One at a time: each takes the whole machine.
static ALONE: Mutex<()> = Mutex::new(());

/// `count` frames there and the same back.
fn flood(test: &str, when: &str, batch: u64, count: u64) {
    let Some(agent) = agent::shared(test) else {
        return;
    };
    let _alone = ALONE.lock();
    let (server, port) = echo(when);
    let mut stream = open(port);
    let frame = Side::Client.frame(FIN | BINARY, &[7; SIZE]);
    let answer = (frame.len() - 4) as u64;
    let (bytes, start) = (frame.repeat(batch as usize), Instant::now());
    let reader = drain(&stream, count * answer);
    for _ in 0..count / batch {
        stream.write_all(&bytes).unwrap();
    }
    let frames = count / batch * batch;
    assert_eq!(reader.join().unwrap(), count * answer);
    let rate = 2.0 * frames as f64 / start.elapsed().as_secs_f64();
    println!("{test}: {rate:.0} frames/s");
    assert!(
        batch == 1 || rate > 1e6,
        "too slow to show anything: {rate:.0} frames/s"
    );

    let ledger = |count| {
        let mut ledger = Ledger::new().with("handshakes.accepted.101", 1);
        for direction in ["sent", "received"] {
            ledger.add(&format!("{direction}.frames.binary"), count);
            ledger.add(&format!("{direction}.messages.binary"), count);
            ledger.add(&format!("{direction}.payload"), count * SIZE as u64);
        }
        ledger
    };
    let services = [
        Service::server(server.name(), port, ledger(frames)),
        Service::client(own_name(), port, ledger(frames)),
    ];
    agent.check(test, &services);
    nothing_lost(agent);
}

#[test]
fn a_thousand_connections_at_once() {
    const CONNECTIONS: u64 = 1000;
    const ROUNDS: u64 = 50;
    let Some(agent) = agent::shared("a_thousand_connections_at_once") else {
        return;
    };
    raise_open_files();
    let (server, port) = echo("drained");
    let mut streams: Vec<TcpStream> = (0..CONNECTIONS).map(|_| open(port)).collect();
    let frame = Side::Client.frame(FIN | TEXT, &[b'x'; SIZE]);
    let answer = frame.len() - 4;
    for round in 0..ROUNDS {
        // All have one under way before the first is read.
        for (number, stream) in streams.iter_mut().enumerate() {
            stream
                .write_all(&frame.repeat(1 + (number + round as usize) % 3))
                .unwrap();
        }
        for (number, stream) in streams.iter_mut().enumerate() {
            let count = 1 + (number + round as usize) % 3;
            stream.read_exact(&mut vec![0; answer * count]).unwrap();
        }
    }
    let frames: u64 = (0..CONNECTIONS * ROUNDS)
        .map(|at| 1 + (at / ROUNDS + at % ROUNDS) % 3)
        .sum();
    let ledger = || {
        let mut ledger = Ledger::new().with("handshakes.accepted.101", CONNECTIONS);
        for direction in ["sent", "received"] {
            ledger.add(&format!("{direction}.frames.text"), frames);
            ledger.add(&format!("{direction}.messages.text"), frames);
            ledger.add(&format!("{direction}.payload"), frames * SIZE as u64);
        }
        ledger
    };
    let check = |what, [client, server_end]: [Ledger; 2]| {
        let services = [
            Service::client(own_name(), port, client),
            Service::server(server.name(), port, server_end),
        ];
        agent.check(what, &services);
    };
    check("a thousand open", [ledger(), ledger()]);
    if !agent.is_absent() {
        assert_eq!(agent.connections(port).len() as u64, 2 * CONNECTIONS);
        let labels = [("port", port.to_string()), ("state", "open".to_owned())];
        let labels = labels
            .each_ref()
            .map(|(name, value)| (*name, value.as_str()));
        let open = agent.metrics().count("wsmon_connections", &labels);
        assert_eq!(open, 2 * CONNECTIONS, "connections that are open");
    }
    // And all of them end at once.
    for stream in &mut streams {
        stream.write_all(&Side::Client.close(1000, "")).unwrap();
    }
    for stream in &mut streams {
        while stream.read(&mut [0; 64]).unwrap() > 0 {}
    }
    drop(streams);
    let closed = |initiator| {
        let mut ledger =
            ledger().with(&format!("closed.1000.close_frame.{initiator}"), CONNECTIONS);
        for direction in ["sent", "received"] {
            ledger.add(&format!("{direction}.frames.close"), CONNECTIONS);
            ledger.add(&format!("{direction}.payload"), CONNECTIONS * 2);
        }
        ledger
    };
    check("a thousand closed", [closed("local"), closed("remote")]);
    nothing_lost(agent);
}

#[test]
fn five_hundred_connections_that_come_and_go() {
    const CONNECTIONS: u64 = 500;
    let Some(agent) = agent::shared("five_hundred_connections_that_come_and_go") else {
        return;
    };
    let (server, port) = echo("drained");
    let hello = Side::Client.frame(FIN | TEXT, b"hello");
    for _ in 0..CONNECTIONS {
        let mut stream = open(port);
        stream
            .write_all(&[hello.clone(), Side::Client.close(1000, "")].concat())
            .unwrap();
        while stream.read(&mut [0; 64]).unwrap() > 0 {}
    }
    let ledger = |initiator| {
        let mut ledger = Ledger::new()
            .with("handshakes.accepted.101", CONNECTIONS)
            .with(&format!("closed.1000.close_frame.{initiator}"), CONNECTIONS);
        for direction in ["sent", "received"] {
            ledger.add(&format!("{direction}.frames.text"), CONNECTIONS);
            ledger.add(&format!("{direction}.messages.text"), CONNECTIONS);
            ledger.add(&format!("{direction}.frames.close"), CONNECTIONS);
            ledger.add(&format!("{direction}.payload"), CONNECTIONS * 7);
        }
        ledger
    };
    let services = [
        Service::client(own_name(), port, ledger("local")),
        Service::server(server.name(), port, ledger("remote")),
    ];
    agent.check("short connections", &services);
    nothing_lost(agent);
}

/// A server that echoes as fast as it can; see its own page for `when`.
fn echo(when: &str) -> (Process, u16) {
    let port = port::free();
    let mut command = Command::new(binary("tungstenite-server"));
    command.args([
        Ipv4Addr::LOCALHOST.to_string(),
        port.to_string(),
        when.to_owned(),
    ]);
    let mut process = Process::start(command);
    assert!(process.answer().contains("ready"));
    (process, port)
}

fn open(port: u16) -> TcpStream {
    let mut stream = connect((Ipv4Addr::LOCALHOST, port).into());
    stream.write_all(&request("/speed")).unwrap();
    assert!(read_head(&stream).starts_with("HTTP/1.1 101"));
    stream
}

/// Reads so many bytes in the background.
fn drain(stream: &TcpStream, length: u64) -> thread::JoinHandle<u64> {
    let mut stream = stream.try_clone().unwrap();
    stream
        .set_read_timeout(Some(Duration::from_mins(1)))
        .unwrap();
    thread::spawn(move || {
        let (mut buffer, mut read) = (vec![0; 1 << 18], 0);
        while read < length {
            match stream.read(&mut buffer) {
                Ok(count @ 1..) => read += count as u64,
                _ => break,
            }
        }
        read
    })
}

fn nothing_lost(agent: &Agent) {
    if !agent.is_absent() {
        assert_eq!(
            agent.metrics().count("wsmon_agent_events_lost_total", &[]),
            0
        );
    }
}
