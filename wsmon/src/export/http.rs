//! The agent's HTTP server: `/metrics`, the API, health.
//!
//! It answers requests by GET alone. Host headers are checked, so that a web page in somebody's
//! browser cannot read it by a name that resolves to this host (DNS rebinding). On an address
//! that is not loopback the API is served only to bearers of a token.

use std::convert::Infallible;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::handle::{Gone, Handle};
use super::prometheus::{self, Format};
use crate::model::filter::Filter;
use crate::model::view::TraceRecord;

/// Connections at once; further ones wait.
const MAX_CONNECTIONS: usize = 256;
/// Traces at once; further ones are refused.
const MAX_TRACES: usize = 16;
/// Bytes of a request's head.
const MAX_HEAD: usize = 16 * 1024;
/// How long a request's head may take, and an idle connection is kept.
const HEAD_PATIENCE: Duration = Duration::from_secs(10);
/// How long the engine may take for an answer.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);

/// What the operator may choose.
#[derive(Clone, Debug)]
pub struct Options {
    /// The address that is listened on.
    pub listen: SocketAddr,
    /// The token that the API asks for where `listen` is not loopback; none: it is not served.
    pub api_token: Option<String>,
    /// Host names by which this server may be asked, beside its addresses.
    pub host_names: Vec<String>,
}

/// Serves until `shutdown` is done; then connections are cut.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()>,
) -> std::io::Result<()> {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        let accept = async {
            let permit = Arc::clone(&room).acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            () = &mut shutdown => return Ok(()),
            Some(_) = connections.join_next() => continue,
            accepted = accept => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // The usual cause is a want of descriptors, which passes.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(router.clone());
        connections.spawn(async move {
            let _permit = permit;
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_PATIENCE)
                .max_buf_size(MAX_HEAD)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = served {
                tracing::debug!(%error, "an HTTP connection failed");
            }
        });
    }
}

/// The routes over a handle.
pub fn router(handle: Handle, options: Options) -> Router {
    let server = Arc::new(Server {
        handle,
        options,
        traces: Arc::new(Semaphore::new(MAX_TRACES)),
        last_scrape_ns: AtomicU64::new(0),
    });
    let api = Router::new()
        .route("/connections", get(connections))
        .route("/trace", get(trace))
        .route("/info", get(info))
        .layer(middleware::from_fn_with_state(
            Arc::clone(&server),
            check_api_access,
        ));
    Router::new()
        .route("/", get(index))
        .route("/metrics", get(metrics))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .nest("/api/v1", api)
        .layer(middleware::from_fn_with_state(
            Arc::clone(&server),
            check_host,
        ))
        .with_state(server)
}

#[derive(Debug)]
struct Server {
    handle: Handle,
    options: Options,
    traces: Arc<Semaphore>,
    last_scrape_ns: AtomicU64,
}

type Shared = State<Arc<Server>>;

async fn index() -> &'static str {
    "wsmon\n\n/metrics\n/healthz\n/readyz\n/api/v1/info\n\
     /api/v1/connections?pid=&port=&remote=&path=&role=\n\
     /api/v1/trace?pid=&port=&remote=&path=&role=&only=&code=&max_rate=&show_reasons=\n"
}

async fn metrics(State(server): Shared, headers: HeaderMap) -> Result<Response, Failure> {
    let began = Instant::now();
    let mut snapshot = answer(server.handle.snapshot()).await?;
    let last = Duration::from_nanos(server.last_scrape_ns.load(Ordering::Relaxed));
    snapshot.agent.scrape_duration_seconds = last.as_secs_f64();
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .unwrap_or_default();
    let format = Format::negotiate(accept);
    // Writing to a String fails only if a label's own formatting does, and none does.
    let page = prometheus::render(Arc::new(snapshot), format).map_err(|_| Failure::Gone)?;
    server
        .last_scrape_ns
        .store(began.elapsed().as_nanos() as u64, Ordering::Relaxed);
    Ok(([(header::CONTENT_TYPE, format.content_type())], page).into_response())
}

async fn readyz(State(server): Shared) -> Result<&'static str, Failure> {
    answer(server.handle.info()).await?;
    Ok("ready\n")
}

async fn info(State(server): Shared) -> Result<Response, Failure> {
    Ok(Json(answer(server.handle.info()).await?).into_response())
}

async fn connections(State(server): Shared, uri: Uri) -> Result<Response, Failure> {
    let filter = filter_of(&uri)?;
    Ok(Json(answer(server.handle.connections(filter)).await?).into_response())
}

/// Records as lines of JSON, for as long as the client reads.
async fn trace(State(server): Shared, uri: Uri) -> Result<Response, Failure> {
    let filter = filter_of(&uri)?;
    let max_rate = match parameter(&uri, "max_rate") {
        None => None,
        Some(rate) => Some(rate.parse().map_err(|_| {
            Failure::Query("max_rate: not a number of records in a second".to_owned())
        })?),
    };
    let show_reasons = match parameter(&uri, "show_reasons") {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err(Failure::Query("show_reasons: true or false".to_owned())),
    };
    let Ok(permit) = Arc::clone(&server.traces).try_acquire_owned() else {
        return Err(Failure::TooManyTraces);
    };
    let records = answer(server.handle.trace(filter, max_rate, show_reasons)).await?;
    let lines = futures_util::stream::unfold((records, permit), async |(mut records, permit)| {
        let record = records.recv().await?;
        let mut lines = Vec::new();
        push_line(&mut lines, &record);
        // What waits already goes into the same chunk.
        while let Ok(record) = records.try_recv() {
            push_line(&mut lines, &record);
            if lines.len() > 64 * 1024 {
                break;
            }
        }
        Some((Ok::<_, Infallible>(Bytes::from(lines)), (records, permit)))
    });
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    Ok((kind, Body::from_stream(lines)).into_response())
}

fn push_line(lines: &mut Vec<u8>, record: &TraceRecord) {
    // Only a map with keys that are no strings could fail, and there is none.
    if serde_json::to_writer(&mut *lines, record).is_ok() {
        lines.push(b'\n');
    }
}

/// Parameters of a trace that are none of a filter's.
const OF_TRACES: [&str; 2] = ["max_rate", "show_reasons"];

/// The value of a parameter that is none of a filter's.
fn parameter<'a>(uri: &'a Uri, name: &str) -> Option<&'a str> {
    uri.query()?
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find_map(|(key, value)| (key == name).then_some(value))
}

fn filter_of(uri: &Uri) -> Result<Filter, Failure> {
    let pairs: Vec<_> = uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            !value.is_empty() && !OF_TRACES.contains(&key)
        })
        .collect();
    let uri: Uri = format!("/?{}", pairs.join("&"))
        .parse()
        .map_err(|error| Failure::Query(format!("{error}")))?;
    let Query(filter) =
        Query::try_from_uri(&uri).map_err(|error| Failure::Query(error.body_text()))?;
    Ok(filter)
}

async fn answer<T>(asked: impl Future<Output = Result<T, Gone>>) -> Result<T, Failure> {
    match tokio::time::timeout(ANSWER_PATIENCE, asked).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(Gone)) => Err(Failure::Gone),
        Err(_) => Err(Failure::Slow),
    }
}

async fn check_host(State(server): Shared, request: Request, next: Next) -> Response {
    let host = request
        .headers()
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    if host.is_some_and(|host| is_own_name(host, &server.options)) {
        next.run(request).await
    } else {
        Failure::Host.into_response()
    }
}

/// Whether a Host header names this server by something that no stranger can make resolve to it.
fn is_own_name(host: &str, options: &Options) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = bare.parse::<IpAddr>() {
        return address.is_loopback()
            || options.listen.ip().is_unspecified()
            || address.to_canonical() == options.listen.ip().to_canonical();
    }
    name.eq_ignore_ascii_case("localhost")
        || options
            .host_names
            .iter()
            .any(|own| own.eq_ignore_ascii_case(name))
}

async fn check_api_access(State(server): Shared, request: Request, next: Next) -> Response {
    if server.options.listen.ip().to_canonical().is_loopback() {
        return next.run(request).await;
    }
    let Some(token) = &server.options.api_token else {
        return Failure::NotExposed.into_response();
    };
    let given = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    if given.is_some_and(|given| is_same(given, token.as_bytes())) {
        next.run(request).await
    } else {
        Failure::Unauthorized.into_response()
    }
}

/// Compares in a time that tells nothing of where they differ.
fn is_same(left: &[u8], right: &[u8]) -> bool {
    let differ = left
        .iter()
        .zip(right)
        .fold(0, |differ, (left, right)| differ | (left ^ right));
    left.len() == right.len() && differ == 0
}

/// Why a request is not answered.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Query(String),
    #[error("the Host header names another server: ask by an address or as localhost")]
    Host,
    #[error("the API is served on loopback addresses only")]
    NotExposed,
    #[error("a bearer token is needed")]
    Unauthorized,
    #[error("too many traces at once")]
    TooManyTraces,
    #[error("{Gone}")]
    Gone,
    #[error("the agent takes too long for an answer")]
    Slow,
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = match &self {
            Self::Query(_) => StatusCode::BAD_REQUEST,
            Self::Host => StatusCode::MISDIRECTED_REQUEST,
            Self::NotExposed => StatusCode::FORBIDDEN,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::TooManyTraces => StatusCode::TOO_MANY_REQUESTS,
            Self::Gone => StatusCode::SERVICE_UNAVAILABLE,
            Self::Slow => StatusCode::GATEWAY_TIMEOUT,
        };
        let body = Json(serde_json::json!({ "error": self.to_string() }));
        (status, body).into_response()
    }
}

#[cfg(test)]
mod tests;
