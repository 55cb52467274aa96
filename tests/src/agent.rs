//! A running `wsmon agent`, and what it says compared with what happened.

use std::{
    env,
    path::PathBuf,
    process::Command,
    sync::OnceLock,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{is_root, ledger::Ledger, metrics::Page, port, process::Process, skip};

/// How long wsmon may take to say what happened: the end of a connection is folded a second
/// after it, and the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(10);

/// The program under test.
pub fn wsmon() -> Option<PathBuf> {
    env::var_os("WSMON_BIN").map(PathBuf::from)
}

/// The programs are driven without wsmon: only their ledgers are compared with each other.
pub fn drivers_only() -> bool {
    env::var_os("WSMON_E2E_DRIVERS_ONLY").is_some()
}

/// The agent that the tests of one program share; `None`, aloud, where there can be none.
///
/// # Panics
///
/// If it does not start.
pub fn shared(test: &str) -> Option<&'static Agent> {
    static AGENT: OnceLock<Agent> = OnceLock::new();
    if drivers_only() {
        skip(test, "the drivers ran without wsmon");
        return Some(AGENT.get_or_init(|| Agent {
            process: None,
            port: 0,
        }));
    }
    if !can_run(test) {
        return None;
    }
    Some(AGENT.get_or_init(Agent::start))
}

/// Whether an agent of a test's own can be started; says why not.
pub fn can_run(test: &str) -> bool {
    if drivers_only() {
        skip(test, "the drivers ran without wsmon");
    } else if wsmon().is_none() {
        skip(test, "WSMON_BIN names no program; cargo xtask test sets it");
    } else if !is_root() {
        skip(test, "needs root");
    } else {
        return true;
    }
    false
}

/// An agent that ends when it is dropped.
pub struct Agent {
    process: Option<Process>,
    pub port: u16,
}

impl Agent {
    /// # Panics
    ///
    /// If it is not ready within 20 s.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// # Panics
    ///
    /// If it is not ready within 20 s.
    pub fn start_with(options: &[&str]) -> Self {
        let port = port::free();
        let mut command = Command::new(wsmon().expect("checked by can_run"));
        command
            .args(["agent", "--listen", &format!("127.0.0.1:{port}")])
            .args(options);
        let mut process = Process::start_with(command, libc::SIGTERM);
        let end = Instant::now() + Duration::from_secs(20);
        while !matches!(get(port, "/readyz", ""), Ok((200, _))) {
            let ended = process.wait(Duration::from_millis(20));
            assert!(
                ended.is_none(),
                "the agent ended: {ended:?}\n{}",
                process.errors()
            );
            assert!(
                Instant::now() < end,
                "the agent is not ready:\n{}",
                process.errors()
            );
        }
        Self {
            process: Some(process),
            port,
        }
    }

    /// The agent's process.
    ///
    /// # Panics
    ///
    /// If there is none, since only the drivers run.
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("an agent runs")
    }

    /// Whether there is none: only the drivers run.
    pub fn is_absent(&self) -> bool {
        self.process.is_none()
    }

    /// A page by its path, in the format asked for.
    ///
    /// # Panics
    ///
    /// If it is not served.
    pub fn text(&self, path: &str, accept: &str) -> String {
        let (status, body) = get(self.port, path, accept).unwrap_or_else(|error| {
            let said = self
                .process
                .as_ref()
                .map(Process::errors)
                .unwrap_or_default();
            panic!("{path}: {error}; the agent said:\n{said}")
        });
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    pub fn metrics(&self) -> Page {
        Page::parse(&self.text("/metrics", ""))
    }

    /// Open connections to a server port.
    ///
    /// # Panics
    ///
    /// If they are not served as JSON.
    pub fn connections(&self, port: u16) -> Vec<Value> {
        let all: Value = serde_json::from_str(&self.text("/api/v1/connections", "")).expect("JSON");
        let all = all
            .as_array()
            .or_else(|| all["connections"].as_array())
            .expect("a list")
            .clone();
        all.into_iter().filter(|one| one["port"] == port).collect()
    }

    /// Waits until wsmon says of each service exactly what is expected of it, and panics with a
    /// table of the differences if it never does.
    ///
    /// # Panics
    ///
    /// So.
    pub fn check(&self, what: &str, services: &[Service]) {
        if let Some(difference) = self.differs(services) {
            panic!("{what}:\n{difference}");
        }
    }

    /// As [`Agent::check`]: the differences, if they remain.
    pub fn differs(&self, services: &[Service]) -> Option<String> {
        if self.is_absent() {
            return None;
        }
        let end = Instant::now() + PATIENCE;
        loop {
            let page = self.metrics();
            let differences: String = services
                .iter()
                .filter_map(|one| one.differs(&page))
                .collect();
            if differences.is_empty() {
                return None;
            }
            if Instant::now() > end {
                return Some(differences);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// What wsmon is to say of one process in one role on one port.
#[derive(Clone, Debug)]
pub struct Service {
    pub role: &'static str,
    pub process: String,
    pub port: u16,
    pub expected: Ledger,
}

impl Service {
    pub fn server(process: impl Into<String>, port: u16, expected: Ledger) -> Self {
        Self {
            role: "server",
            process: process.into(),
            port,
            expected,
        }
    }

    pub fn client(process: impl Into<String>, port: u16, expected: Ledger) -> Self {
        Self {
            role: "client",
            process: process.into(),
            port,
            expected,
        }
    }

    fn differs(&self, page: &Page) -> Option<String> {
        let (role, process, port) = (self.role, &self.process, self.port);
        let mut seen = page.service(role, process, port);
        let mut expected = self.expected.without("wire");
        for direction in ["sent", "received"] {
            let sizes = expected.get(&format!("{direction}.messages.text"))
                + expected.get(&format!("{direction}.messages.binary"));
            expected.add(&format!("{direction}.sizes"), sizes);
        }
        // Compared only where the test says how the connections ended.
        if expected.only(&["closed."]) == Ledger::new() {
            seen = seen
                .without("closed")
                .without("closed_timed")
                .without("connections");
        } else {
            expected.add("closed_timed", expected.total("closed."));
        }
        seen = seen.without("handshakes_timed");
        if expected.leaves_open_how() {
            seen = seen.merging_ends();
        }
        let table = seen.difference(&expected)?;
        let known = page.services(port).join(", ");
        Some(format!(
            "{role} {process} on port {port} (known there: {known})\n{table}"
        ))
    }
}

fn get(port: u16, path: &str, accept: &str) -> Result<(u16, String), String> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(Duration::from_secs(10)))
        .http_status_as_error(false)
        .build()
        .into();
    let mut request = agent.get(format!("http://127.0.0.1:{port}{path}"));
    if !accept.is_empty() {
        request = request.header("accept", accept);
    }
    let mut response = request.call().map_err(|error| error.to_string())?;
    let status = response.status().as_u16();
    let body = response
        .body_mut()
        .with_config()
        .limit(64 << 20)
        .read_to_string();
    Ok((status, body.map_err(|error| error.to_string())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = r#"
wsmon_frames_total{role="server",hop="endpoint",process="a",port="80",direction="sent",opcode="text"} 3
wsmon_frames_total{role="server",hop="endpoint",process="a",port="80",direction="received",opcode="text"} 0
wsmon_frames_total{role="server",hop="endpoint",process="b",port="80",direction="sent",opcode="text"} 9
wsmon_messages_total{role="server",hop="endpoint",process="a",port="80",direction="sent",type="text"} 3
wsmon_message_size_bytes_count{role="server",hop="endpoint",process="a",port="80",direction="sent"} 3
wsmon_payload_bytes_total{role="server",hop="endpoint",process="a",port="80",direction="sent"} 15
wsmon_handshakes_total{role="server",hop="endpoint",process="a",port="80",result="accepted",status="101"} 1
wsmon_connections{role="server",hop="endpoint",process="a",port="80",state="open"} 1
"#;

    fn expected() -> Ledger {
        Ledger::new()
            .with("sent.frames.text", 3)
            .with("sent.messages.text", 3)
            .with("sent.payload", 15)
            .with("sent.wire", 21)
            .with("handshakes.accepted.101", 1)
    }

    #[test]
    fn a_service_that_is_as_expected_has_no_differences() {
        let page = Page::parse(PAGE);
        assert_eq!(Service::server("a", 80, expected()).differs(&page), None);
    }

    #[test]
    fn what_is_too_much_or_too_little_is_a_difference() {
        let page = Page::parse(PAGE);
        for (key, count) in [
            ("sent.frames.text", 1),
            ("received.payload", 1),
            ("errors.masking", 1),
        ] {
            let more = Service::server("a", 80, expected().with(key, count)).differs(&page);
            assert!(more.is_some_and(|table| table.contains(key)), "{key}");
        }
        assert!(
            Service::server("c", 80, expected())
                .differs(&page)
                .is_some()
        );
        assert!(
            Service::client("a", 80, expected())
                .differs(&page)
                .is_some()
        );
        // Said to have ended, and it is open.
        let ended = expected().with("closed.1000.close_frame.local", 1);
        assert!(Service::server("a", 80, ended).differs(&page).is_some());
    }

    #[test]
    fn a_connection_that_ended_is_timed_and_no_longer_open() {
        let ended = PAGE.replace(
            r#"wsmon_connections{role="server",hop="endpoint",process="a",port="80",state="open"} 1"#,
            r#"wsmon_connections_closed_total{role="server",process="a",port="80",code="1006",cause="reset",initiator="remote"} 1
wsmon_connection_duration_seconds_count{role="server",process="a",port="80"} 1"#,
        );
        let service = Service::server(
            "a",
            80,
            expected().with("closed.1006.fin_or_reset.remote", 1),
        );
        assert_eq!(service.differs(&Page::parse(&ended)), None);
    }
}
