//! A client with tokio-tungstenite, driven over standard input (see node/wire.cjs).

use std::{io::BufRead as _, time::Duration};

use anyhow::{Context as _, Result, bail};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        Error, Message,
        client::IntoClientRequest as _,
        protocol::{
            CloseFrame, WebSocketConfig,
            frame::{
                Frame,
                coding::{Data, OpCode},
            },
        },
    },
};
use wsmon_e2e::wire::{Role, Tapped, Wire};

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut client = Client {
        wire: Wire::default(),
        web_socket: None,
    };
    runtime.block_on(async {
        let (send, mut lines) = tokio::sync::mpsc::channel(1);
        std::thread::spawn(move || {
            for line in std::io::stdin().lock().lines().map_while(Result::ok) {
                let _ = send.blocking_send(line);
            }
        });
        loop {
            // Between requests the socket is read too: pings want an answer.
            let line = tokio::select! {
                line = lines.recv() => line,
                message = client.next(), if client.web_socket.is_some() => {
                    if message.is_none_or(|message| message.is_err()) {
                        client.web_socket = None;
                    }
                    continue;
                }
            };
            let Some(line) = line else { return Ok(()) };
            let request = serde_json::from_str(&line)?;
            let answer = tokio::time::timeout(Duration::from_secs(30), client.answer(&request));
            let answer = match answer.await {
                Ok(Ok(answer)) => answer,
                Ok(Err(error)) => json!({ "error": format!("{error:#}") }),
                Err(_) => json!({ "error": "nothing in 30 s" }),
            };
            println!("{answer}");
        }
    })
}

struct Client {
    wire: Wire,
    web_socket: Option<WebSocketStream<Tapped<TcpStream>>>,
}

impl Client {
    async fn answer(&mut self, request: &Value) -> Result<Value> {
        let count = request["count"].as_u64().unwrap_or(1) as usize;
        let data = "x".repeat(request["size"].as_u64().unwrap_or(0) as usize);
        let text = request["type"] == "text";
        match request["do"].as_str().unwrap_or_default() {
            "ledger" => Ok(self.wire.ledger().to_json()),
            "open" => self.open(request["url"].as_str().context("no url")?).await,
            "send" => {
                for _ in 0..count {
                    self.send(if text {
                        Message::text(data.clone())
                    } else {
                        Message::binary(data.clone().into_bytes())
                    })
                    .await?;
                }
                self.messages(count).await
            }
            "fragments" => {
                for at in 0..count {
                    let opcode = match (at, text) {
                        (0, true) => Data::Text,
                        (0, false) => Data::Binary,
                        _ => Data::Continue,
                    };
                    let fragment =
                        Frame::message(data.clone(), OpCode::Data(opcode), at + 1 == count);
                    self.send(Message::Frame(fragment)).await?;
                }
                self.messages(1).await
            }
            "command" => {
                self.send(Message::text(request["text"].as_str().context("no text")?))
                    .await?;
                self.messages(request["expect"].as_u64().unwrap_or(0) as usize)
                    .await
            }
            "ping" => {
                let payload = request["text"].as_str().context("no text")?.to_owned();
                self.send(Message::Ping(payload.into())).await?;
                while !self.next().await.context("closed")??.is_pong() {}
                Ok(json!({}))
            }
            "close" => {
                let code = request["code"].as_u64().context("no code")? as u16;
                let reason = request["reason"].as_str().unwrap_or_default().to_owned();
                let frame = CloseFrame {
                    code: code.into(),
                    reason: reason.into(),
                };
                self.web_socket
                    .as_mut()
                    .context("not open")?
                    .close(Some(frame))
                    .await?;
                self.closed().await
            }
            "await_close" => self.closed().await,
            other => bail!("cannot {other}"),
        }
    }

    async fn open(&mut self, url: &str) -> Result<Value> {
        let request = url.into_client_request()?;
        let stream =
            TcpStream::connect(request.uri().authority().context("no host")?.as_str()).await?;
        stream.set_nodelay(true)?;
        let config = WebSocketConfig::default()
            .max_frame_size(None)
            .max_message_size(None);
        let tapped = self.wire.tap(stream, Role::Client);
        match client_async_with_config(request, tapped, Some(config)).await {
            Ok((web_socket, _)) => {
                self.web_socket = Some(web_socket);
                Ok(json!({ "status": 101 }))
            }
            Err(Error::Http(refusal)) => Ok(json!({ "status": refusal.status().as_u16() })),
            Err(error) => Err(error.into()),
        }
    }

    async fn send(&mut self, message: Message) -> Result<()> {
        Ok(self
            .web_socket
            .as_mut()
            .context("not open")?
            .send(message)
            .await?)
    }

    async fn next(&mut self) -> Option<Result<Message, Error>> {
        self.web_socket.as_mut()?.next().await
    }

    /// Reads until `count` messages came.
    async fn messages(&mut self, mut count: usize) -> Result<Value> {
        while count > 0 {
            let message = self.next().await.context("closed")??;
            count -= usize::from(message.is_text() || message.is_binary());
        }
        Ok(json!({}))
    }

    /// Reads until the connection is over.
    async fn closed(&mut self) -> Result<Value> {
        while let Some(Ok(_)) = self.next().await {}
        self.web_socket = None;
        Ok(json!({}))
    }
}
