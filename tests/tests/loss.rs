//! Packets get lost on a wire between two hosts: everything is counted, or accounted for as
//! unsynced.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use wsmon_e2e::{
    agent::{self, Agent},
    ledger::Ledger,
    namespace::Link,
    process::executable_name,
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
    let Some(agent) = agent::shared(test) else { return };
    if find("ip").is_none() {
        return skip(test, "ip is not installed");
    }
    for (server, client) in [(Kind::Node, Kind::Tungstenite), (Kind::Tungstenite, Kind::Node)] {
        if let Some(missing) = server.missing().or(client.missing()) {
            return skip(test, &format!("{missing} is not installed"));
        }
        let mut link = match Link::new() {
            Ok(link) => link,
            Err(error) => return skip(test, &format!("no network namespaces: {error}")),
        };
        let address: IpAddr = link.left.address.into();
        let mut server =
            Server::start_at(server, address, false, &|command| link.left.adopt(command));
        let mut client = Client::start_with(client, &|command| link.right.adopt(command));
        let url = format!("ws://{address}:{}/lossy", server.port);
        assert_eq!(client.open(&url), 101);
        if let Err(error) = link.lose(permille) {
            return skip(test, &format!("no packet dropper: {error}"));
        }
        let end = Instant::now() + Duration::from_secs(12);
        let lost = |link: &Link| {
            link.left.retransmitted().unwrap_or(0) + link.right.retransmitted().unwrap_or(0)
        };
        // As many as it takes to see losses, in bursts that fill packets.
        while Instant::now() < end && lost(&link) < 60 {
            for (kind, count) in [("text", 1), ("binary", 3), ("text", 1000)] {
                let request = json!({ "do": "send", "type": kind, "size": SIZE, "count": count });
                client.ask(&request);
            }
            let command = format!("!send 1000 {SIZE} binary");
            client.ask(&json!({ "do": "command", "text": command, "expect": 1000 }));
        }
        assert!(lost(&link) >= 5, "nothing was lost");
        accounts(agent, &mut server, &mut client, lost(&link));
    }
}

/// Either direction, at either end: what was counted and what was not make up the whole.
fn accounts(agent: &Agent, server: &mut Server, client: &mut Client, lost: u64) {
    let truth = wsmon_e2e::within(Duration::from_secs(20), || {
        let (server, client) = (server.ledger(), client.ledger());
        match client.mirrored().difference(&server) {
            None => Ok(server),
            Some(difference) => Err(difference),
        }
    });
    if agent.is_absent() {
        return;
    }
    let ends = [
        ("server", executable_name(server.process.pid()), truth.clone()),
        ("client", executable_name(client.process.pid()), truth.mirrored()),
    ];
    for (role, process, truth) in ends {
        let row = wsmon_e2e::within(Duration::from_secs(10), || {
            let rows = agent.connections(server.port);
            let row = rows.into_iter().find(|row| row["role"] == role && row["process"] == *process);
            let row = row.ok_or(format!("no {role} {process}"))?;
            settled(&row, &truth).map(|()| row)
        });
        for direction in ["sent", "received"] {
            account(&row, role, direction, &truth, lost);
        }
    }
}

fn settled(row: &Value, truth: &Ledger) -> Result<(), String> {
    for direction in ["sent", "received"] {
        let (wire, all) = (&row[direction]["wire_bytes"], truth.get(&format!("{direction}.wire")));
        if wire.as_u64() != Some(all) {
            return Err(format!("{direction}: {wire} of {all} bytes passed"));
        }
    }
    Ok(())
}

fn account(row: &Value, role: &str, direction: &str, truth: &Ledger, lost: u64) {
    let view = &row[direction];
    let count = |name: &str| view[name].as_u64().expect("a count");
    let masked = (role == "client") == (direction == "sent");
    let header = if masked { HEADERS.1 } else { HEADERS.0 };
    let frames: u64 =
        view["frames"].as_object().expect("frames").values().filter_map(Value::as_u64).sum();
    // All frames have the same header: sizes were chosen so.
    let counted = count("payload_bytes") + frames * header;
    let unsynced = count("unsynced_bytes");
    assert_eq!(
        counted + unsynced,
        count("wire_bytes"),
        "{role} {direction}, {lost} segments sent again: {view:#}"
    );
    if unsynced == 0 {
        for opcode in ["text", "binary", "continuation", "close", "ping", "pong"] {
            let seen = view["frames"][opcode].as_u64().unwrap_or(0);
            let sent = truth.get(&format!("{direction}.frames.{opcode}"));
            assert_eq!(seen, sent, "{role} {direction} {opcode}");
        }
    } else {
        println!("{role} {direction}: {unsynced} of {} bytes unsynced", count("wire_bytes"));
    }
    // Sending is in order whatever is lost behind it.
    if direction == "sent" {
        assert_eq!(unsynced, 0, "{role}: what is sent passes in order");
    }
}
