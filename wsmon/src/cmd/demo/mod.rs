//! `wsmon demo`: a chat server and a dozen clients, some of them ill-behaved, on loopback.
//!
//! Server and clients are processes of their own, this program started again under other names, so
//! that there are two services and both roles to see.

mod clients;
mod names;
mod server;

use std::{io::Write as _, path::Path, process::Stdio, time::Duration};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, ChildStdin, Command},
};

use self::names::Names;
use super::{args::period, stop::Stop};
use crate::output;

const EXAMPLES: &str = "\
Examples:
  wsmon demo                          until Ctrl-C
  wsmon demo --for 30s --port 0       for half a minute, on any free port

While it runs, in another terminal:
  wsmon top
  wsmon trace --port 8765
";

/// Run a local chat server with well- and ill-behaved clients.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub struct Demo {
    /// The server's port on 127.0.0.1; 0, or a port that is taken: any free one.
    #[arg(long, default_value_t = 8765, env = "WSMON_DEMO_PORT")]
    port: u16,

    /// Stop after this time: 30s, 5m, 1h30m.
    #[arg(long = "for", value_name = "DURATION", value_parser = period)]
    duration: Option<Duration>,

    #[command(subcommand)]
    part: Option<Part>,
}

/// What `wsmon demo` starts.
#[derive(Debug, Subcommand)]
enum Part {
    #[command(hide = true)]
    Server {
        #[arg(long)]
        port: u16,
    },
    #[command(hide = true)]
    Clients {
        #[arg(long)]
        port: u16,
    },
}

impl Demo {
    pub async fn run(self) -> anyhow::Result<()> {
        match self.part {
            None => conduct(self.port, self.duration).await,
            Some(Part::Server { port }) => {
                let listener = server::listen(port).await?;
                announce(listener.local_addr()?.port())?;
                until_parent_ends(server::serve(listener)).await
            }
            Some(Part::Clients { port }) => until_parent_ends(clients::run(port)).await,
        }
    }
}

/// Starts both parts, says what they do, and ends them again.
async fn conduct(port: u16, duration: Option<Duration>) -> anyhow::Result<()> {
    let mut stop = Stop::listen()?;
    // Lives until both have ended: the folder that the programs are in.
    let names = Names::new();
    let mut server = start(&names, "server", port)?;
    let bound = announced_port(&mut server.child).await?;
    let mut clients = start(&names, "clients", bound)?;
    introduce(port, bound, &server.child, &clients.child)?;

    let over = async {
        match duration {
            Some(duration) => tokio::time::sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    let early = tokio::select! {
        () = stop.requested() => None,
        () = over => None,
        status = server.child.wait() => Some(("server", status)),
        status = clients.child.wait() => Some(("clients", status)),
    };
    // Clients first: a server that goes before them would have every connection end the same way.
    end(clients).await;
    end(server).await;
    match early {
        // The terminal's Ctrl-C goes to the whole group, and a part may be the first to act on it.
        Some((part, Ok(status))) if !status.success() => {
            bail!("the demo's {part} ended by itself ({status})")
        }
        Some((part, Err(error))) => {
            Err(error).context(format!("cannot wait for the demo's {part}"))
        }
        _ => Ok(()),
    }
}

/// A part ends when its stdin does: however this process goes, nothing stays behind.
struct Running {
    child: Child,
    /// Apart from `child`, because [`Child::wait`] closes what it has.
    stdin: Option<ChildStdin>,
}

fn start(names: &Names, part: &str, port: u16) -> anyhow::Result<Running> {
    let own = std::env::current_exe().context("cannot find this program's own file")?;
    let spawn = |program: &Path| {
        Command::new(program)
            .args(["demo", part, "--port", &port.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
    };
    // A temporary folder may be mounted noexec; the demo works under its own name too.
    let named = names
        .program(&own, part)
        .and_then(|program| spawn(&program).ok());
    let mut child = match named {
        Some(child) => child,
        None => spawn(&own).with_context(|| format!("cannot start the demo's {part}"))?,
    };
    let stdin = child.stdin.take();
    Ok(Running { child, stdin })
}

async fn end(part: Running) {
    let Running { mut child, stdin } = part;
    drop(stdin);
    if tokio::time::timeout(Duration::from_secs(3), child.wait())
        .await
        .is_err()
    {
        tracing::warn!("a part of the demo did not end by itself");
        if let Err(error) = child.kill().await {
            tracing::warn!("and cannot be killed: {error}");
        }
    }
}

fn announce(port: u16) -> anyhow::Result<()> {
    let mut out = output::stdout();
    writeln!(out, "{port}")?;
    out.flush()?;
    Ok(())
}

async fn announced_port(server: &mut Child) -> anyhow::Result<u16> {
    let stdout = server
        .stdout
        .take()
        .context("the demo's server has no stdout")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).await?;
    line.trim()
        .parse()
        .context("the demo's server did not come up; its message is above")
}

async fn until_parent_ends(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let mut stop = Stop::listen()?;
    let (sender, parent_ended) = tokio::sync::oneshot::channel();
    // A thread rather than tokio's stdin, whose read cannot be abandoned.
    std::thread::spawn(move || {
        let ended = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        let _ = sender.send(ended);
    });
    tokio::select! {
        result = work => result,
        () = stop.requested() => Ok(()),
        _ = parent_ended => Ok(()),
    }
}

fn introduce(asked: u16, bound: u16, server: &Child, clients: &Child) -> anyhow::Result<()> {
    let pid = |child: &Child| child.id().map_or("?".into(), |id| id.to_string());
    let mut out = output::stdout();
    if asked != 0 && asked != bound {
        writeln!(out, "Port {asked} is taken: the server took {bound}.")?;
    }
    writeln!(
        out,
        "A chat server listens on ws://127.0.0.1:{bound} (pid {}), with these clients (pid {}):\n",
        pid(server),
        pid(clients)
    )?;
    for kind in clients::KINDS {
        writeln!(
            out,
            "  {} {:<9} {:<8} {}",
            kind.count, kind.name, kind.path, kind.does
        )?;
    }
    writeln!(
        out,
        "\nLook at them in another terminal:\n  \
         wsmon top\n  \
         wsmon ls --port {bound}\n  \
         wsmon trace --port {bound}\n\n\
         Ctrl-C ends it."
    )?;
    out.flush()?;
    Ok(())
}
