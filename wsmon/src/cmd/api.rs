//! The agent's HTTP API, as commands ask it.

use std::time::Duration;

use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream};
use reqwest::{Response, Url};
use serde::{Deserialize, de::DeserializeOwned};
use thiserror::Error;
use wsmon::model::{
    filter::Filter,
    view::{ConnectionView, TraceRecord},
};

use super::args::AgentAddress;
use crate::output::escape;

/// A line of a trace is at most a few handshake heads long; more is not an agent speaking.
const LINE_LIMIT: usize = 1 << 20;

#[derive(Debug, Error)]
pub enum ApiError {
    #[error("`{url}` is not an agent's address, such as http://127.0.0.1:9790: {reason}")]
    Address { url: String, reason: String },
    #[error(
        "no agent answers at {url}; start one with `sudo wsmon agent`, \
         or name another address by --agent or WSMON_AGENT"
    )]
    NoAnswer {
        url: Url,
        #[source]
        source: reqwest::Error,
    },
    #[error("the agent at {url} refused with {status}: {message}")]
    Refused {
        url: Url,
        status: reqwest::StatusCode,
        message: String,
    },
    #[error("the answer from {url} broke off or is not an agent's")]
    Answer {
        url: Url,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// A running agent.
pub struct Agent {
    http: reqwest::Client,
    base: Url,
}

impl Agent {
    pub fn at(address: &AgentAddress) -> Result<Self, ApiError> {
        let wrong = |reason: String| ApiError::Address {
            url: address.url.clone(),
            reason,
        };
        // `host:port` alone would parse with the host as the scheme.
        let text = if address.url.contains("://") {
            address.url.clone()
        } else {
            format!("http://{}", address.url)
        };
        let base = Url::parse(&text).map_err(|error| wrong(error.to_string()))?;
        if base.scheme() != "http" || !base.has_host() {
            return Err(wrong("it is plain HTTP with a host".into()));
        }
        let http = reqwest::Client::builder()
            // An agent is asked directly, also where a proxy is configured for the world outside.
            .no_proxy()
            .connect_timeout(Duration::from_secs(3))
            .user_agent(concat!("wsmon/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| wrong(error.to_string()))?;
        Ok(Self { http, base })
    }

    /// The open connections now.
    pub async fn connections(&self, filter: &Filter) -> Result<Vec<ConnectionView>, ApiError> {
        let ask = self.http.get(self.url("/api/v1/connections")).query(filter);
        let answer = self.send(ask.timeout(Duration::from_secs(10))).await?;
        let url = answer.url().clone();
        let body = answer.bytes().await.map_err(|source| ApiError::Answer {
            url: url.clone(),
            source: source.into(),
        })?;
        parse(&url, &body)
    }

    /// What happens from now on, until it is dropped.
    pub async fn trace(
        &self,
        filter: &Filter,
        show_reasons: bool,
    ) -> Result<impl Stream<Item = Result<TraceRecord, ApiError>> + use<>, ApiError> {
        let mut ask = self.http.get(self.url("/api/v1/trace")).query(filter);
        if show_reasons {
            ask = ask.query(&[("show_reasons", true)]);
        }
        let answer = self.send(ask).await?;
        let url = answer.url().clone();
        let broken = url.clone();
        let chunks = answer
            .bytes_stream()
            .map_err(move |source| ApiError::Answer {
                url: broken.clone(),
                source: source.into(),
            });
        Ok(lines(Box::pin(chunks), url.clone()).map(move |line| parse(&url, &line?)))
    }

    fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        let prefix = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{prefix}{path}"));
        url
    }

    async fn send(&self, ask: reqwest::RequestBuilder) -> Result<Response, ApiError> {
        let answer = ask.send().await.map_err(|source| ApiError::NoAnswer {
            url: self.base.clone(),
            source: source.without_url(),
        })?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let url = answer.url().clone();
        let body = answer.text().await.unwrap_or_default();
        let message = refusal(&body).chars().take(200).collect::<String>();
        Err(ApiError::Refused {
            url,
            status,
            message: escape(&message).into_owned(),
        })
    }
}

/// What the agent says; what is not an agent's answer is shown by its first line.
fn refusal(body: &str) -> String {
    #[derive(Deserialize)]
    struct Refusal {
        error: String,
    }
    match serde_json::from_str::<Refusal>(body) {
        Ok(refusal) => refusal.error,
        Err(_) => body.lines().next().unwrap_or_default().to_owned(),
    }
}

fn parse<T: DeserializeOwned>(url: &Url, json: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(json).map_err(|source| ApiError::Answer {
        url: url.clone(),
        source: source.into(),
    })
}

/// Lines that are not empty, without their ends.
fn lines<C, B>(chunks: C, url: Url) -> impl Stream<Item = Result<Vec<u8>, ApiError>>
where
    C: Stream<Item = Result<B, ApiError>> + Unpin,
    B: AsRef<[u8]>,
{
    stream::try_unfold(
        (chunks, Vec::<u8>::new()),
        move |(mut chunks, mut buffer)| {
            let url = url.clone();
            async move {
                let mut searched = 0;
                loop {
                    if let Some(end) = buffer[searched..].iter().position(|&byte| byte == b'\n') {
                        let mut line: Vec<u8> = buffer.drain(..=searched + end).collect();
                        searched = 0;
                        line.truncate(line.trim_ascii_end().len());
                        if line.is_empty() {
                            continue;
                        }
                        return Ok(Some((line, (chunks, buffer))));
                    }
                    searched = buffer.len();
                    if searched > LINE_LIMIT {
                        return Err(ApiError::Answer {
                            url,
                            source: "a line has no end".into(),
                        });
                    }
                    match chunks.next().await.transpose()? {
                        Some(chunk) => buffer.extend_from_slice(chunk.as_ref()),
                        // A record that was cut off is not one.
                        None => return Ok(None),
                    }
                }
            }
        },
    )
}

#[cfg(test)]
mod tests {
    use tokio::{net::TcpListener, sync::mpsc};
    use wsmon::{
        export::{handle, http},
        model::view::Traced,
    };

    use super::*;
    use crate::cmd::example;

    async fn split(chunks: &[&str]) -> Vec<String> {
        let chunks = stream::iter(chunks.to_vec()).map(Ok::<_, ApiError>);
        lines(chunks, Url::parse("http://agent").unwrap())
            .map_ok(|line| String::from_utf8(line).unwrap())
            .try_collect()
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn lines_are_the_same_however_they_are_split() {
        assert_eq!(
            split(&["one\ntwo\r\n\nthree\ncut"]).await,
            ["one", "two", "three"]
        );
        assert_eq!(
            split(&["on", "e", "\ntwo\n", "\nthr", "ee\n"]).await,
            ["one", "two", "three"]
        );
    }

    /// The agent's own server, over an engine that has one connection and two records.
    async fn served() -> Agent {
        let (handle, mut requests) = handle::channel();
        tokio::spawn(async move {
            while let Some(request) = requests.recv().await {
                match request {
                    handle::Request::Connections { filter, reply } => {
                        let mut all = vec![example::connection("1")];
                        all.retain(|view| filter.matches_connection(view));
                        let _ = reply.send(all);
                    }
                    handle::Request::Trace { filter, reply, .. } => {
                        let handshake = example::connection("1").handshake;
                        let result = "accepted".into();
                        let mut all = vec![
                            example::record(Traced::Handshake { result, handshake }),
                            example::record(example::end(1006)),
                        ];
                        all.retain(|record| filter.matches_record(record));
                        let (sender, receiver) = mpsc::channel(2);
                        let _ = reply.send(receiver);
                        for record in all {
                            let _ = sender.send(record).await;
                        }
                    }
                    _ => {}
                }
            }
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listen = listener.local_addr().unwrap();
        let options = http::Options {
            listen,
            api_token: None,
            host_names: Vec::new(),
        };
        tokio::spawn(http::serve(
            listener,
            http::router(handle, options),
            std::future::pending(),
        ));
        Agent::at(&AgentAddress {
            url: format!("http://{listen}"),
        })
        .unwrap()
    }

    fn everything() -> Filter {
        Filter {
            pid: Some(4711),
            port: Some(8080),
            remote: Some("127.0.0.0/8".parse().unwrap()),
            path: Some("/ch*t".into()),
            ..Filter::default()
        }
    }

    #[tokio::test]
    async fn the_agent_understands_every_filter() {
        let agent = served().await;
        assert_eq!(
            agent.connections(&everything()).await.unwrap(),
            [example::connection("1")]
        );
        let other = Filter {
            port: Some(1),
            ..everything()
        };
        assert_eq!(agent.connections(&other).await.unwrap(), []);
    }

    #[tokio::test]
    async fn a_trace_is_read_to_its_end() {
        let agent = served().await;
        let traced = async |filter: Filter| -> Vec<TraceRecord> {
            let records = agent.trace(&filter, false).await.unwrap();
            records.try_collect().await.unwrap()
        };
        let all = traced(everything()).await;
        assert_eq!(all.len(), 2);
        assert_eq!(all[0].path.as_deref(), Some("/chat"));
        let ends = Filter {
            code: Some(1006),
            only: "close".parse().unwrap(),
            ..everything()
        };
        assert_eq!(traced(ends).await, [example::record(example::end(1006))]);
    }

    #[tokio::test]
    async fn nobody_at_the_address_is_said_with_the_way_out() {
        let agent = Agent::at(&AgentAddress {
            url: "127.0.0.1:1".into(),
        })
        .unwrap();
        let error = agent.connections(&Filter::default()).await.unwrap_err();
        assert!(matches!(error, ApiError::NoAnswer { .. }));
        assert!(error.to_string().contains("sudo wsmon agent"), "{error}");
    }

    #[test]
    fn a_refusal_is_told_in_the_agents_words() {
        assert_eq!(
            refusal(r#"{"error":"too many traces at once"}"#),
            "too many traces at once"
        );
        assert_eq!(refusal("Not Found\n<html>"), "Not Found");
    }

    #[test]
    fn an_address_is_plain_http() {
        let at = |url: &str| Agent::at(&AgentAddress { url: url.into() });
        assert!(at("https://127.0.0.1:9790").is_err());
        assert!(at("http://").is_err());
        let agent = at("http://127.0.0.1:9790/behind/").unwrap();
        assert_eq!(agent.url("/api/v1/info").path(), "/behind/api/v1/info");
    }
}
