//! A server with tokio-tungstenite; see node/server.cjs for what it does.
//! Usage: `tungstenite-server ADDRESS PORT [each|drained]`
//!
//! With a third argument it only echoes, as fast as it can, and counts nothing itself; it writes
//! after `each` message, or when what it had read is `drained`.

use std::{env, io::BufRead as _, net::IpAddr};

use anyhow::{Context as _, Result};
use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
};
use tokio_tungstenite::{
    WebSocketStream, accept_async_with_config, accept_hdr_async_with_config,
    tungstenite::{
        Message,
        handshake::server::{ErrorResponse, Request, Response},
        protocol::{
            CloseFrame, WebSocketConfig,
            frame::{
                Frame,
                coding::{Data, OpCode},
            },
        },
    },
};
use wsmon_e2e::wire::{Role, Wire};

fn main() -> Result<()> {
    let mut arguments = env::args().skip(1);
    let address: IpAddr = arguments.next().context("no address")?.parse()?;
    let port: u16 = arguments.next().context("no port")?.parse()?;
    let fast = arguments.next();
    let wire = Wire::default();
    let counted = wire.clone();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::thread::spawn(move || answer(&counted));
    runtime.block_on(async {
        let listener = TcpListener::bind((address, port)).await?;
        println!(r#"{{"ready":true}}"#);
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let (wire, fast) = (wire.clone(), fast.clone());
            tokio::spawn(async move {
                // A peer that goes away is no concern of the server's.
                let _ = match fast.as_deref() {
                    None => serve(stream, wire).await,
                    Some(when) => echo(stream, when == "each").await,
                };
            });
        }
    })
}

/// Every line on standard input asks for the ledger; its end ends the program.
fn answer(wire: &Wire) {
    for _ in std::io::stdin().lock().lines() {
        println!("{}", wire.ledger().to_json());
    }
    std::process::exit(0);
}

fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .max_frame_size(None)
        .max_message_size(None)
}

async fn echo(stream: TcpStream, each: bool) -> Result<()> {
    let mut web_socket = accept_async_with_config(stream, Some(config())).await?;
    while let Some(message) = web_socket.next().await {
        let mut message = message?;
        loop {
            if !message.is_close() {
                web_socket.feed(message).await?;
            }
            if each {
                web_socket.flush().await?;
            }
            match web_socket.next().now_or_never() {
                Some(Some(next)) => message = next?,
                Some(None) => return Ok(()),
                None => break,
            }
        }
        web_socket.flush().await?;
    }
    Ok(())
}

async fn serve(stream: TcpStream, wire: Wire) -> Result<()> {
    #[expect(
        clippy::result_large_err,
        reason = "the callback's type is the library's"
    )]
    let reject = |request: &Request, response: Response| {
        let Some(status) = request.uri().path().strip_prefix("/reject/") else {
            return Ok(response);
        };
        let mut refusal = ErrorResponse::new(None);
        *refusal.status_mut() = status.parse().expect("a status");
        Err(refusal)
    };
    let tapped = wire.tap(stream, Role::Server);
    let mut web_socket = accept_hdr_async_with_config(tapped, reject, Some(config())).await?;
    while let Some(message) = web_socket.next().await {
        match message? {
            Message::Text(text) if text.starts_with('!') => {
                command(&mut web_socket, &text[1..]).await?;
            }
            message @ (Message::Text(_) | Message::Binary(_)) => web_socket.send(message).await?,
            _ => {}
        }
    }
    Ok(())
}

async fn command<S>(web_socket: &mut WebSocketStream<S>, text: &str) -> Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (name, rest) = text
        .split_once(' ')
        .context("a command without arguments")?;
    let words: Vec<&str> = rest.split(' ').collect();
    match name {
        "ping" => {
            web_socket
                .send(Message::Ping(rest.to_owned().into()))
                .await?;
        }
        "close" => {
            let (code, reason) = rest.split_once(' ').unwrap_or((rest, ""));
            let frame = CloseFrame {
                code: code.parse::<u16>()?.into(),
                reason: reason.into(),
            };
            web_socket.close(Some(frame)).await?;
        }
        _ => {
            let (count, size): (usize, usize) = (words[0].parse()?, words[1].parse()?);
            let data = "x".repeat(size);
            let text = words[2] == "text";
            for at in 0..count {
                web_socket
                    .send(match (name, text) {
                        ("send", true) => Message::text(data.clone()),
                        ("send", false) => Message::binary(data.clone().into_bytes()),
                        (_, text) => fragment(data.clone(), text, at, count),
                    })
                    .await?;
            }
        }
    }
    Ok(())
}

fn fragment(data: String, text: bool, at: usize, count: usize) -> Message {
    let opcode = match (at, text) {
        (0, true) => Data::Text,
        (0, false) => Data::Binary,
        _ => Data::Continue,
    };
    Message::Frame(Frame::message(data, OpCode::Data(opcode), at + 1 == count))
}
