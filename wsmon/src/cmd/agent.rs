//! `wsmon agent`: watch, keep the model, serve metrics and the API.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use tokio::net::TcpListener;
use wsmon::{engine::Engine, export::http, kernel::Options, model::Config};

use super::{
    args::{bytes, period},
    stop::Stop,
};

const EXAMPLES: &str = "\
Examples:
  sudo wsmon agent
  sudo wsmon agent --listen 127.0.0.1:9999 --slots 65536
  sudo wsmon agent --cgroup /sys/fs/cgroup/system.slice/nginx.service

Then:
  curl http://127.0.0.1:9790/metrics
  wsmon top
";

/// Watch the WebSockets of this host; serve metrics and the API.
///
/// Needs root, or CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Agent {
    /// Where metrics and the API are served.
    #[arg(
        long,
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:9790",
        env = "WSMON_LISTEN"
    )]
    pub listen: SocketAddr,

    /// Watch only sockets that are made in this cgroup2, named by its folder; else the whole host.
    #[arg(long, value_name = "PATH", env = "WSMON_CGROUP")]
    pub cgroup: Option<PathBuf>,

    /// Connections that can be followed at once; further ones are counted as untracked.
    #[arg(long, value_name = "N", default_value_t = 16_384, env = "WSMON_SLOTS",
        value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    pub slots: u32,

    /// Size of the buffer for events: 4194304, 4MiB.
    #[arg(long, value_name = "BYTES", default_value = "4MiB", env = "WSMON_RING_SIZE", value_parser = bytes)]
    pub ring_size: u32,

    /// Services with metrics of their own; what is over goes to `other`.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 200,
        env = "WSMON_MAX_SERVICES"
    )]
    pub max_services: usize,

    /// Series on the page of metrics.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 50_000,
        env = "WSMON_MAX_SERIES"
    )]
    pub max_series: usize,

    /// Give a handshake up that has no answer after this time: 30s, 2m.
    #[arg(long, value_name = "DURATION", default_value = "60s", env = "WSMON_HANDSHAKE_TIMEOUT", value_parser = period)]
    pub handshake_timeout: Duration,

    /// Where the process of a connection is learnt.
    #[arg(long, value_enum, default_value_t = ProcessSource::Auto, env = "WSMON_PROCESS_SOURCE")]
    pub process_source: ProcessSource,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProcessSource {
    /// A hook where the kernel has one, else procfs.
    Auto,
    /// From the tracepoints of socket calls: exact; Linux 6.3 and newer.
    Hook,
    /// From /proc: nothing to attach; may miss a process that is gone at once.
    Procfs,
}

impl Agent {
    pub async fn run(self) -> anyhow::Result<()> {
        let mut stop = Stop::listen()?;
        let listener = TcpListener::bind(self.listen).await.with_context(|| {
            format!(
                "cannot listen on {}; choose another address with --listen",
                self.listen
            )
        })?;
        let options = Options {
            cgroup: self.cgroup,
            slots: self.slots,
            ring_bytes: self.ring_size,
            process_hook: self.process_source != ProcessSource::Procfs,
            ..Options::default()
        };
        let config = Config {
            max_services: self.max_services,
            max_series: self.max_series,
            handshake_timeout_seconds: self.handshake_timeout.as_secs().max(1),
            ..Config::default()
        };
        let (engine, handle) = Engine::start(&options, config)?;
        let server = http::Options {
            listen: listener
                .local_addr()
                .context("the listening socket has no address")?,
            api_token: None,
            host_names: Vec::new(),
        };
        tracing::info!("metrics at http://{}/metrics", server.listen);
        let router = http::router(handle, server);
        let engine = tokio::spawn(engine.run());
        let served = http::serve(listener, router, stop.requested()).await;
        // The handles are gone with the server: the engine detaches its programs and ends.
        engine.await.context("the engine failed")?;
        served.context("the HTTP server failed")
    }
}
