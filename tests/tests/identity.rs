//! Whose connection is it? The process is found also where that is not easy.

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpStream},
    process::Command,
    time::Duration,
};

use serde_json::Value;
use wsmon_e2e::{
    agent::{self, Agent},
    port,
    process::Process,
    program::{Client, Kind, Server, binary, find, python_script},
    raw::{FIN, Side, TEXT, connect, read_head, request},
    skip, within,
};

/// A connection over which a text was echoed.
fn talk(port: u16) -> TcpStream {
    let mut stream = connect((Ipv4Addr::LOCALHOST, port).into());
    stream.write_all(&request("/identity")).unwrap();
    assert!(read_head(&stream).starts_with("HTTP/1.1 101"));
    let hello = Side::Client.frame(FIN | TEXT, b"hello");
    stream.write_all(&hello).unwrap();
    stream.read_exact(&mut vec![0; hello.len() - 4]).unwrap();
    stream
}

/// Rows of a role, once there are so many.
fn rows(agent: &Agent, port: u16, role: &str, count: usize) -> Vec<Value> {
    within(Duration::from_secs(10), || {
        let rows = agent
            .connections(port)
            .into_iter()
            .filter(|row| row["role"] == role);
        let rows: Vec<Value> = rows.collect();
        if rows.len() == count {
            Ok(rows)
        } else {
            Err(format!("{} rows", rows.len()))
        }
    })
}

#[test]
fn a_worker_that_was_forked_before_the_connection_came() {
    let name = "a_worker_that_was_forked_before_the_connection_came";
    if let Some(missing) = Kind::Websockets.missing() {
        return skip(name, &format!("{missing} is not installed"));
    }
    let Some(agent) = agent::shared(name) else {
        return;
    };
    let port = port::free();
    let mut command = python_script("prefork.py");
    command.args(["127.0.0.1", &port.to_string()]);
    let mut server = Process::start(command);
    let ready: Value = serde_json::from_str(&server.answer()).unwrap();
    let workers = ready["workers"].as_array().unwrap();
    let streams: Vec<TcpStream> = (0..30).map(|_| talk(port)).collect();
    if agent.is_absent() {
        return;
    }
    let rows = rows(agent, port, "server", streams.len());
    let found: BTreeSet<u64> = rows.iter().filter_map(|row| row["pid"].as_u64()).collect();
    for row in &rows {
        assert!(workers.contains(&row["pid"]), "one of {workers:?}: {row:#}");
        assert_eq!(row["process"], server.name());
    }
    // Whose is whose: as the kernel says.
    for row in &rows {
        let pid = row["pid"].as_u64().unwrap();
        assert!(
            holds(pid, port, &row["remote"]),
            "{pid} does not hold {row:#}"
        );
    }
    assert!(!found.is_empty());
}

/// Whether a process holds the IPv4 socket on this port with this peer.
fn holds(pid: u64, port: u16, remote: &Value) -> bool {
    let remote = remote.as_str().and_then(|text| text.parse().ok());
    let Some(std::net::SocketAddr::V4(remote)) = remote else {
        panic!("{remote:?}")
    };
    let wanted = format!(
        "{:08X}:{:04X}",
        u32::from(*remote.ip()).swap_bytes(),
        remote.port()
    );
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let line = table.lines().find(|line| {
        let mut fields = line.split_whitespace().skip(1);
        // A peer's port may lead to another of this host's ports too.
        let is_port = fields
            .next()
            .is_some_and(|local| local.ends_with(&format!(":{port:04X}")));
        is_port && fields.next() == Some(&*wanted)
    });
    let inode = line
        .and_then(|line| line.split_whitespace().nth(9))
        .expect("it is open");
    let socket = format!("socket:[{inode}]");
    std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .flatten()
        .any(|entry| {
            std::fs::read_link(entry.path()).is_ok_and(|link| link.to_str() == Some(&socket))
        })
}

#[test]
fn a_process_in_another_pid_namespace() {
    let name = "a_process_in_another_pid_namespace";
    let Some(agent) = agent::shared(name) else {
        return;
    };
    if find("unshare").is_none() {
        return skip(name, "no unshare");
    }
    let port = port::free();
    let mut command = Command::new("unshare");
    command
        .args(["--pid", "--fork", "--kill-child"])
        .arg(binary("tungstenite-server"))
        .args(["127.0.0.1", &port.to_string()]);
    let mut server = Process::start(command);
    if server.line_within(Duration::from_secs(10)).is_none() {
        return skip(name, &format!("no PID namespaces: {}", server.errors()));
    }
    let _stream = talk(port);
    if agent.is_absent() {
        return;
    }
    let rows = rows(agent, port, "server", 1);
    assert_eq!(rows[0]["process"], "tungstenite-server");
    let parent = server.pid();
    let children =
        std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap();
    assert_eq!(children.trim(), rows[0]["pid"].to_string());
}

#[test]
fn a_client_that_is_gone_at_once() {
    const CLIENTS: u64 = 20;
    let Some(agent) = agent::shared("a_client_that_is_gone_at_once") else {
        return;
    };
    let server = Server::start(Kind::Tungstenite);
    for _ in 0..CLIENTS {
        let mut client = Client::start(Kind::Tungstenite);
        assert_eq!(client.open(&server.url("/short")), 101);
        client.process.kill();
    }
    if agent.is_absent() {
        return;
    }
    let port = server.port.to_string();
    within(Duration::from_secs(10), || {
        let page = agent.metrics();
        let of = |role, process| {
            let labels = [
                ("port", port.as_str()),
                ("role", role),
                ("process", process),
            ];
            page.count("wsmon_connections_closed_total", &labels)
        };
        let found = (
            of("client", "tungstenite-client"),
            of("server", "tungstenite-server"),
        );
        if found == (CLIENTS, CLIENTS) {
            Ok(())
        } else {
            Err(format!(
                "{found:?} of {CLIENTS}; known: {:?}",
                page.services(server.port)
            ))
        }
    });
}
