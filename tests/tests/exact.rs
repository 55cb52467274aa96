//! Real servers and real clients, every combination: wsmon's counts equal the programs' own.

use std::{fmt, time::Duration};

use serde_json::json;
use wsmon_e2e::{
    agent::{self, Agent, Service},
    ledger::Ledger,
    program::{Client, Kind, Server},
    skip, within,
};

/// Frames and messages, and nothing else.
const PASSED: [&str; 2] = ["sent.", "received."];

macro_rules! pairs {
    ($($server:ident { $($name:ident: $client:ident)* })*) => { $(
        #[expect(non_snake_case, reason = "named after the server")]
        mod $server {
            use super::*;
            $(
                #[test]
                fn $name() {
                    let test = format!("{}::{}", stringify!($server), stringify!($name));
                    run(&test, Kind::$server, Kind::$client);
                }
            )*
        }
    )* };
}

pairs! {
    Node { and_node: Node and_websockets: Websockets and_aiohttp: Aiohttp and_tungstenite: Tungstenite and_chromium: Chromium }
    Websockets { and_node: Node and_websockets: Websockets and_aiohttp: Aiohttp and_tungstenite: Tungstenite and_chromium: Chromium }
    Aiohttp { and_node: Node and_websockets: Websockets and_aiohttp: Aiohttp and_tungstenite: Tungstenite and_chromium: Chromium }
    Tungstenite { and_node: Node and_websockets: Websockets and_aiohttp: Aiohttp and_tungstenite: Tungstenite and_chromium: Chromium }
    Nginx { and_node: Node and_websockets: Websockets and_aiohttp: Aiohttp and_tungstenite: Tungstenite and_chromium: Chromium }
}

fn run(test: &str, server: Kind, client: Kind) {
    if let Some(missing) = server.missing().or(client.missing()) {
        return skip(test, &format!("{missing} is not installed"));
    }
    let Some(agent) = agent::shared(test) else {
        return;
    };
    let mut pair = Pair::start(agent, server, client);
    pair.messages();
    pair.pings();
    pair.closes();
    pair.rejections();
    pair.kills();
    drop(pair);
    if server.deflates() && client.deflates() {
        Pair::start_deflating(agent, server, client).compressed();
    }
}

/// A server, a client, and what happened between them so far.
struct Pair {
    agent: &'static Agent,
    server: Server,
    client: Client,
    kinds: (Kind, Kind),
    /// `process` labels: server, the server behind it, client.
    names: (String, Option<String>, String),
    /// Of clients that are no more.
    past: Ledger,
    /// Handshakes and ends, each from its own side's view.
    server_side: Ledger,
    client_side: Ledger,
    /// Of nginx towards the server behind it, and of that server.
    onward_side: Ledger,
    backend_side: Ledger,
}

impl Pair {
    fn start(agent: &'static Agent, server: Kind, client: Kind) -> Self {
        Self::of(agent, Server::start(server), server, client)
    }

    fn start_deflating(agent: &'static Agent, server: Kind, client: Kind) -> Self {
        Self::of(agent, Server::start_deflating(server), server, client)
    }

    fn of(agent: &'static Agent, server: Server, kind: Kind, client: Kind) -> Self {
        let client = Client::start(client);
        let backend = server
            .backend
            .as_ref()
            .map(|backend| backend.process.name());
        Self {
            agent,
            names: (server.process.name(), backend, client.name()),
            kinds: (kind, client.kind),
            server,
            client,
            past: Ledger::new(),
            server_side: Ledger::new(),
            client_side: Ledger::new(),
            onward_side: Ledger::new(),
            backend_side: Ledger::new(),
        }
    }

    fn messages(&mut self) {
        self.open("/messages");
        self.check("the handshake");
        self.hops();
        for kind in ["text", "binary"] {
            for size in [0, 1, 125, 126, 65_535, 65_536] {
                self.send(kind, size, 1);
            }
            self.send(kind, 100, 200);
        }
        self.send("binary", 20 << 20, 1);
        for (count, size, kind) in [
            (3, 1000, "text"),
            (50, 10, "binary"),
            (1, 20 << 20, "binary"),
        ] {
            self.command(&format!("!send {count} {size} {kind}"), count);
        }
        if self.client.kind.fragments() {
            for (kind, count, size) in [("text", 2, 10), ("binary", 5, 70_000), ("binary", 3, 0)] {
                let what = format!("{count} fragments of {size} {kind}");
                self.client
                    .ask(&json!({ "do": "fragments", "type": kind, "count": count, "size": size }));
                self.check(&what);
            }
        }
        if self.kinds.0.fragments() {
            self.command("!fragments 4 300 text", 1);
            self.command("!fragments 3 0 binary", 1);
        }
    }

    /// Whoever has both roles is a proxy.
    fn hops(&self) {
        if self.agent.is_absent() {
            return;
        }
        let page = self.agent.metrics();
        let proxy = self.server.backend.is_some();
        let port = self.server.port.to_string();
        let hop = |role| {
            let labels = [("port", port.as_str()), ("role", role)];
            page.select("wsmon_connections", &labels)
                .map(|one| one.label("hop").to_owned())
                .next()
        };
        let expected = if proxy { "proxy" } else { "endpoint" };
        assert_eq!(hop("server").as_deref(), Some(expected), "{self}");
        assert_eq!(hop("client").as_deref(), Some("endpoint"), "{self}");
    }

    fn pings(&mut self) {
        if self.client.kind.pings() {
            for payload in ["", "beat", &"p".repeat(125)] {
                self.client.ask(&json!({ "do": "ping", "text": payload }));
                self.check(&format!("ping with {} bytes", payload.len()));
            }
        }
        // The echo of the message behind it shows that the ping was read.
        self.command("!ping alive", 0);
        self.send("text", 5, 1);
    }

    /// Compared when all is over: wsmon may take a second to settle whose a connection is.
    fn closes(&mut self) {
        let codes = [
            (1000, "bye"),
            (1001, "away"),
            (1011, "broken"),
            (4321, "reason of its own"),
        ];
        let client = self.client.kind;
        for (code, reason) in codes
            .into_iter()
            .filter(|(code, _)| client.closes_with(*code))
        {
            self.client
                .ask(&json!({ "do": "close", "code": code, "reason": reason }));
            self.closed(&closed_label(code), "close_frame", Began::Client);
            self.open("/close");
        }
        for (code, reason) in codes {
            self.command_only(&format!("!close {code} {reason}"), 0);
            self.client.ask(&json!({ "do": "await_close" }));
            self.closed(&closed_label(code), "close_frame", Began::Server);
            self.open("/close");
        }
    }

    fn rejections(&mut self) {
        self.client
            .ask(&json!({ "do": "close", "code": 1000, "reason": "" }));
        self.closed("1000", "close_frame", Began::Client);
        for status in [400, 401, 403, 404, 200] {
            if status == 200 && self.kinds.0 == Kind::Tungstenite {
                continue; // Its refusals must not be a success.
            }
            let told = self
                .client
                .open(&self.server.url(&format!("/reject/{status}")));
            if self.client.kind.learns_status() {
                assert_eq!(told, status);
            }
            let result = if status == 200 { "ignored" } else { "rejected" };
            self.on_all_sides(&format!("handshakes.{result}.{status}"));
        }
        self.check_ends("closes and rejected handshakes");
    }

    fn kills(&mut self) {
        self.open("/kill");
        self.send("text", 100, 1);
        // The client dies.
        self.past = self.truth().mirrored();
        let next = Client::start(self.kinds.1);
        self.client.process.signal_group(libc::SIGKILL);
        let killed = std::mem::replace(&mut self.client, next);
        drop(killed);
        self.client_side.add("closed.1006.process_exit.local", 1);
        self.server_side.add("closed.1006.fin_or_reset.remote", 1);
        self.onward_side.add("closed.1006.fin_or_reset.local", 1);
        self.backend_side.add("closed.1006.fin_or_reset.remote", 1);
        self.check_ends("kill -9 of the client");

        // The server dies.
        self.open("/kill");
        self.send("binary", 100, 1);
        let truth = self.truth();
        self.server.process.signal_group(libc::SIGKILL);
        let answer = self.client.ask(&json!({ "do": "await_close" }));
        assert!(
            answer["code"].is_null() || answer["code"] != 1000,
            "a clean end? {answer}"
        );
        self.client_side.add("closed.1006.fin_or_reset.remote", 1);
        self.server_side.add("closed.1006.process_exit.local", 1);
        self.onward_side.add("closed.1006.process_exit.local", 1);
        self.backend_side.add("closed.1006.fin_or_reset.remote", 1);
        self.agent
            .check("kill -9 of the server", &self.services(&truth, true));
    }

    fn compressed(&mut self) {
        let url = self.server.url("/compressed");
        assert_eq!(self.client.open_deflating(&url), 101);
        self.on_all_sides("handshakes.accepted.101");
        for (kind, size) in [
            ("text", 0),
            ("text", 10),
            ("binary", 100_000),
            ("text", 5000),
        ] {
            self.send(kind, size, 3);
        }
        let truth = self.truth();
        assert!(
            truth.get("received.compressed") > 0,
            "nothing was compressed"
        );
        assert!(truth.get("sent.compressed") > 0, "nothing was compressed");
        self.client
            .ask(&json!({ "do": "close", "code": 1000, "reason": "" }));
        self.closed("1000", "close_frame", Began::Client);
        self.check_ends("compressed messages");
    }

    fn open(&mut self, path: &str) {
        assert_eq!(self.client.open(&self.server.url(path)), 101);
        self.on_all_sides("handshakes.accepted.101");
    }

    fn send(&mut self, kind: &str, size: usize, count: u64) {
        self.client
            .ask(&json!({ "do": "send", "type": kind, "size": size, "count": count }));
        self.check(&format!("{count} × {kind} of {size} bytes"));
    }

    fn command(&mut self, command: &str, expect: u64) {
        self.command_only(command, expect);
        self.check(command);
    }

    fn command_only(&mut self, command: &str, expect: u64) {
        self.client
            .ask(&json!({ "do": "command", "text": command, "expect": expect }));
    }

    fn on_all_sides(&mut self, key: &str) {
        for side in [
            &mut self.server_side,
            &mut self.client_side,
            &mut self.onward_side,
            &mut self.backend_side,
        ] {
            side.add(key, 1);
        }
    }

    fn closed(&mut self, code: &str, cause: &str, began: Began) {
        self.client_side.add(
            &format!("closed.{code}.{cause}.{}", began.seen_by(Began::Client)),
            1,
        );
        self.server_side.add(
            &format!("closed.{code}.{cause}.{}", began.seen_by(Began::Server)),
            1,
        );
        // nginx is the client of the server behind it.
        self.onward_side.add(
            &format!("closed.{code}.{cause}.{}", began.seen_by(Began::Client)),
            1,
        );
        self.backend_side.add(
            &format!("closed.{code}.{cause}.{}", began.seen_by(Began::Server)),
            1,
        );
    }

    /// What passed, from the server's point of view; both ends agree on it.
    fn truth(&mut self) -> Ledger {
        let counts = self.client.kind.counts();
        within(Duration::from_secs(10), || {
            let server = self.server.ledger();
            if !counts {
                return Ok(server);
            }
            let mut client = self.past.clone();
            client += &self.client.ledger();
            match client.mirrored().difference(&server) {
                None => Ok(server),
                Some(difference) => Err(format!("the two ends do not agree:\n{difference}")),
            }
        })
    }

    /// wsmon knows exactly what passed so far.
    fn check(&mut self, what: &str) {
        self.compare(what, false);
    }

    /// It also knows how every connection ended.
    fn check_ends(&mut self, what: &str) {
        self.compare(what, true);
    }

    fn compare(&mut self, what: &str, ends: bool) {
        // A pong or a Close may be under way when the programs are asked: ask again.
        let mut last = String::new();
        for _ in 0..3 {
            let truth = self.truth();
            match self.agent.differs(&self.services(&truth, ends)) {
                None => return,
                Some(difference) => last = difference,
            }
        }
        panic!("{self}: {what}:\n{last}");
    }

    fn services(&self, truth: &Ledger, ends: bool) -> Vec<Service> {
        let expected = |passed: &Ledger, side: &Ledger| {
            let mut expected = passed.only(&PASSED);
            expected += &if ends {
                side.clone()
            } else {
                side.only(&["handshakes."])
            };
            expected
        };
        let (server, backend, client) = &self.names;
        let (sent, received) = (truth.clone(), truth.mirrored());
        let port = self.server.port;
        let mut services = vec![
            Service::server(server, port, expected(&sent, &self.server_side)),
            Service::client(client, port, expected(&received, &self.client_side)),
        ];
        if let (Some(name), Some(backend)) = (backend, &self.server.backend) {
            services.push(Service::client(
                server,
                backend.port,
                expected(&received, &self.onward_side),
            ));
            services.push(Service::server(
                name,
                backend.port,
                expected(&sent, &self.backend_side),
            ));
        }
        services
    }
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} server and {:?} client", self.kinds.0, self.kinds.1)
    }
}

/// Who began to close.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Began {
    Client,
    Server,
}

impl Began {
    fn seen_by(self, side: Self) -> &'static str {
        if self == side { "local" } else { "remote" }
    }
}

/// The `code` label.
fn closed_label(code: u16) -> String {
    if code >= 4000 {
        "app_4xxx".to_owned()
    } else {
        code.to_string()
    }
}
