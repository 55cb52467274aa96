//! Packets get lost on a wire between two hosts: everything is counted, or accounted for as
//! unsynced.

use std::{
    net::IpAddr,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use wsmon_e2e::{
    agent::{self, Agent},
    ledger::Ledger,
    namespace::Link,
    program::{Client, Kind, Server, find},
    skip,
};

/// Bytes of payload in every message: small, so that a packet begins inside a header often.
const SIZE: u64 = 90;
/// Header of such a frame: unmasked, masked.
const HEADERS: (u64, u64) = (2, 6);

#[test]
fn one_percent_of_packets_lost() {
    run("one_percent_of_packets_lost", 10);
}

#[test]
fn five_percent_of_packets_lost() {
    run("five_percent_of_packets_lost", 50);
}

fn run(test: &str, permille: u32) {
    let Some(agent) = agent::shared(test) else {
        return;
    };
    if find("ip").is_none() {
        return skip(test, "ip is not installed");
    }
    if let Some(missing) = Kind::Node.missing() {
        return skip(test, &format!("{missing} is not installed"));
    }
    for kind in [Kind::Node, Kind::Tungstenite] {
        let mut link = match Link::new() {
            Ok(link) => link,
            Err(error) => return skip(test, &format!("no network namespaces: {error}")),
        };
        let address: IpAddr = link.left.address.into();
        let mut server =
            Server::start_at(kind, address, false, &|command| link.left.adopt(command));
        let url = format!("ws://{address}:{}/lossy", server.port);
        let kinds = [Kind::Tungstenite, Kind::Node, Kind::Tungstenite, Kind::Node];
        let mut clients = kinds.map(|kind| {
            let mut client = Client::start_with(kind, &|command| link.right.adopt(command));
            assert_eq!(client.open(&url), 101);
            client
        });
        if let Err(error) = link.lose(permille) {
            return skip(test, &format!("no packet dropper: {error}"));
        }
        let lost =
            || link.left.retransmitted().unwrap_or(0) + link.right.retransmitted().unwrap_or(0);
        let end = Instant::now() + Duration::from_secs(7);
        thread::scope(|scope| {
            for client in &mut clients {
                // As many as it takes to see losses.
                scope.spawn(move || {
                    while Instant::now() < end && lost() < 300 {
                        talk(client);
                    }
                });
            }
        });
        let lost = lost();
        println!("{test}: {lost} segments sent again");
        assert!(lost >= 5, "nothing was lost");
        account(agent, &mut server, &mut clients, lost);
    }
}

/// Single messages, and bursts that fill packets, both ways.
fn talk(client: &mut Client) {
    for (kind, count) in [("text", 1), ("binary", 3), ("text", 500)] {
        client.ask(&json!({ "do": "send", "type": kind, "size": SIZE, "count": count }));
    }
    let command = format!("!send 500 {SIZE} binary");
    client.ask(&json!({ "do": "command", "text": command, "expect": 500 }));
}

/// Either direction, at either end: what was counted and what was not make up the whole.
fn account(agent: &Agent, server: &mut Server, clients: &mut [Client], lost: u64) {
    let truth = wsmon_e2e::within(Duration::from_secs(20), || {
        let mut sum = Ledger::new();
        for client in &mut *clients {
            sum += &client.ledger();
        }
        let server = server.ledger();
        match sum.mirrored().difference(&server) {
            None => Ok(server),
            Some(difference) => Err(difference),
        }
    });
    if agent.is_absent() {
        return;
    }
    // A process is found whatever network namespace its sockets are in.
    let pids = clients
        .iter()
        .map(|client| client.process.pid())
        .chain([server.process.pid()]);
    let pids: Vec<Value> = pids.map(Value::from).collect();
    for row in agent.connections(server.port) {
        assert!(pids.contains(&row["pid"]), "one of {pids:?}: {row:#}");
    }
    for (role, truth) in [("server", truth.clone()), ("client", truth.mirrored())] {
        for direction in ["sent", "received"] {
            let all = truth.get(&format!("{direction}.wire"));
            let seen = wsmon_e2e::within(Duration::from_secs(10), || {
                let seen = total(&agent.connections(server.port), role, direction);
                let wire = seen.get("wire");
                if wire == all {
                    Ok(seen)
                } else {
                    Err(format!("{wire} of {all} bytes passed"))
                }
            });
            let masked = (role == "client") == (direction == "sent");
            // All frames have the same header: sizes were chosen so.
            let header = if masked { HEADERS.1 } else { HEADERS.0 };
            let counted = seen.get("payload") + seen.total("frames.") * header;
            let unsynced = seen.get("unsynced");
            let what = format!("{role} {direction}, {lost} segments sent again: {seen:?}");
            assert_eq!(counted + unsynced, all, "{what}");
            // Sending is in order whatever is lost behind it.
            assert!(unsynced == 0 || direction == "received", "{what}");
            if unsynced > 0 {
                println!("{role} {direction}: {unsynced} of {all} bytes unsynced");
                continue;
            }
            for opcode in ["text", "binary", "continuation", "close", "ping", "pong"] {
                let wanted = truth.get(&format!("{direction}.frames.{opcode}"));
                assert_eq!(
                    seen.get(&format!("frames.{opcode}")),
                    wanted,
                    "{opcode}: {what}"
                );
            }
        }
    }
}

/// What wsmon says of one direction of all connections.
fn total(rows: &[Value], role: &str, direction: &str) -> Ledger {
    let mut sum = Ledger::new();
    for row in rows.iter().filter(|row| row["role"] == role) {
        let view = &row[direction];
        for name in ["wire", "payload", "unsynced"] {
            sum.add(
                name,
                view[format!("{name}_bytes")].as_u64().expect("a count"),
            );
        }
        for (opcode, count) in view["frames"].as_object().expect("frames") {
            sum.add(
                &format!("frames.{opcode}"),
                count.as_u64().expect("a count"),
            );
        }
    }
    sum
}
