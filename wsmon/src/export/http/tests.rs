use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::*;
use crate::export::handle::{self, Info, Request as Asked};
use crate::model::snapshot::Snapshot;
use crate::model::view::{ConnectionView, DirectionView, HandshakeView, Traced};

/// Answers as an engine with one connection does.
async fn engine(mut requests: mpsc::Receiver<Asked>) {
    while let Some(request) = requests.recv().await {
        match request {
            Asked::Snapshot(reply) => drop(reply.send(Snapshot::default())),
            Asked::Info(reply) => drop(reply.send(Info {
                version: "1".into(),
                tap: "packet".into(),
                tap_reason: "default".into(),
                pid: 5,
            })),
            Asked::Connections { filter, reply } => {
                let all = vec![connection()];
                let wanted = all.into_iter().filter(|one| filter.matches_connection(one));
                drop(reply.send(wanted.collect()));
            }
            Asked::Trace {
                max_rate, reply, ..
            } => {
                let (sender, records) = mpsc::channel(4);
                drop(reply.send(records));
                for lines in [u64::from(max_rate.unwrap_or(0)), 2] {
                    drop(sender.send(record(lines)).await);
                }
            }
        }
    }
}

fn connection() -> ConnectionView {
    ConnectionView {
        id: "0-1".into(),
        role: "server".into(),
        state: "open".into(),
        process: "node".into(),
        pid: Some(7),
        port: 8080,
        local: "127.0.0.1:8080".into(),
        remote: "127.0.0.1:50000".into(),
        handshake: HandshakeView::default(),
        opened_at: String::new(),
        age_seconds: 1.0,
        idle_seconds: 1.0,
        sent: DirectionView::default(),
        received: DirectionView::default(),
    }
}

fn record(lines: u64) -> TraceRecord {
    TraceRecord {
        time: String::new(),
        connection: "0-1".into(),
        role: "server".into(),
        process: "node".into(),
        pid: None,
        local: String::new(),
        remote: String::new(),
        port: 8080,
        path: None,
        what: Traced::Dropped { lines },
    }
}

/// A server on a free port of 127.0.0.1 that believes it listens on `listen`.
async fn started(listen: &str, api_token: Option<&str>) -> SocketAddr {
    let (handle, requests) = handle::channel();
    tokio::spawn(engine(requests));
    let options = Options {
        listen: listen.parse().unwrap(),
        api_token: api_token.map(str::to_owned),
        host_names: vec!["wsmon.example".into()],
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(
        listener,
        router(handle, options),
        std::future::pending(),
    ));
    address
}

/// Status and everything after the head.
async fn get_with(address: SocketAddr, path: &str, fields: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nConnection: close\r\n{fields}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    (status, body.to_owned())
}

async fn get_path(address: SocketAddr, path: &str) -> (u16, String) {
    get_with(address, path, "Host: localhost\r\n").await
}

#[tokio::test]
async fn the_page_comes_in_the_format_that_was_asked_for() {
    let address = started("127.0.0.1:9790", None).await;
    let (status, text) = get_path(address, "/metrics").await;
    assert_eq!(status, 200);
    assert!(text.contains("# TYPE wsmon_frames_total counter"));
    let fields = "Host: 127.0.0.1:9790\r\nAccept: application/openmetrics-text\r\n";
    let (_, open_metrics) = get_with(address, "/metrics", fields).await;
    assert!(open_metrics.contains("# TYPE wsmon_frames counter"));
    assert!(open_metrics.contains("# EOF"));
}

#[tokio::test]
async fn health_and_readiness() {
    let address = started("127.0.0.1:9790", None).await;
    assert_eq!(get_path(address, "/healthz").await.0, 200);
    assert_eq!(get_path(address, "/readyz").await.0, 200);
}

#[tokio::test]
async fn an_agent_that_is_gone_is_not_ready() {
    let (handle, requests) = handle::channel();
    drop(requests);
    let options = Options {
        listen: "127.0.0.1:9790".parse().unwrap(),
        api_token: None,
        host_names: Vec::new(),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(
        listener,
        router(handle, options),
        std::future::pending(),
    ));
    assert_eq!(get_path(address, "/readyz").await.0, 503);
    assert_eq!(get_path(address, "/healthz").await.0, 200);
}

#[tokio::test]
async fn connections_are_filtered() {
    let address = started("127.0.0.1:9790", None).await;
    let (status, body) = get_path(address, "/api/v1/connections?pid=7&port=8080&path=").await;
    assert_eq!(status, 200);
    let views: Vec<ConnectionView> = serde_json::from_str(&body).unwrap();
    assert_eq!(views[0].id, "0-1");
    let (_, none) = get_path(address, "/api/v1/connections?remote=10.0.0.0%2F8").await;
    assert_eq!(none, "[]");
    let (status, error) = get_path(address, "/api/v1/connections?color=red").await;
    assert_eq!(status, 400);
    assert!(error.contains("color"), "{error}");
}

#[tokio::test]
async fn a_trace_is_lines_of_json() {
    let address = started("127.0.0.1:9790", None).await;
    let (status, body) = get_path(
        address,
        "/api/v1/trace?only=frame&max_rate=9&show_reasons=true",
    )
    .await;
    assert_eq!(status, 200);
    let records: Vec<TraceRecord> = body
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(records, [record(9), record(2)]);
    assert_eq!(get_path(address, "/api/v1/trace?only=lunch").await.0, 400);
}

#[tokio::test]
async fn a_name_that_a_stranger_chose_is_refused() {
    let address = started("127.0.0.1:9790", None).await;
    for (host, status) in [
        ("localhost:9790", 200),
        ("127.0.0.1:9790", 200),
        ("[::1]:9790", 200),
        ("wsmon.example", 200),
        ("evil.example:9790", 421),
        ("10.0.0.1", 421),
        ("", 421),
    ] {
        let fields = format!("Host: {host}\r\n");
        assert_eq!(
            get_with(address, "/metrics", &fields).await.0,
            status,
            "{host}"
        );
    }
    assert_eq!(get_with(address, "/metrics", "").await.0, 421);
}

#[tokio::test]
async fn outside_of_loopback_the_api_needs_a_token() {
    let closed = started("0.0.0.0:9790", None).await;
    assert_eq!(get_path(closed, "/metrics").await.0, 200);
    assert_eq!(get_path(closed, "/api/v1/info").await.0, 403);
    let open = started("0.0.0.0:9790", Some("secret")).await;
    for (fields, status) in [
        ("Host: 10.0.0.1\r\n", 401),
        ("Host: 10.0.0.1\r\nAuthorization: Bearer wrong!\r\n", 401),
        ("Host: 10.0.0.1\r\nAuthorization: Bearer secret\r\n", 200),
    ] {
        assert_eq!(get_with(open, "/api/v1/info", fields).await.0, status);
    }
}

#[tokio::test]
async fn a_head_without_end_is_refused() {
    let address = started("127.0.0.1:9790", None).await;
    let fields = format!("Host: localhost\r\nA: {}\r\n", "a".repeat(2 * MAX_HEAD));
    assert_eq!(get_with(address, "/metrics", &fields).await.0, 431);
}

#[tokio::test]
async fn a_trace_ends_when_its_client_goes() {
    let (handle, mut requests) = handle::channel();
    let options = Options {
        listen: "127.0.0.1:9790".parse().unwrap(),
        api_token: None,
        host_names: Vec::new(),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(
        listener,
        router(handle, options),
        std::future::pending(),
    ));
    let mut client = TcpStream::connect(address).await.unwrap();
    client
        .write_all(b"GET /api/v1/trace HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await
        .unwrap();
    let Some(Asked::Trace { reply, .. }) = requests.recv().await else {
        panic!("no trace was asked for")
    };
    let (sender, records) = mpsc::channel(4);
    drop(reply.send(records));
    let mut head = [0; 12];
    client.read_exact(&mut head).await.unwrap();
    drop(client);
    let closed = tokio::time::timeout(Duration::from_secs(5), sender.closed()).await;
    assert!(closed.is_ok());
}
