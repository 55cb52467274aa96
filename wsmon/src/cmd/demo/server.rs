//! The demo's server: rooms by path.

use std::{io, time::Duration};

use anyhow::Context as _;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::broadcast,
    time::{Interval, MissedTickBehavior},
};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async,
    tungstenite::{
        self, Bytes, Message, Utf8Bytes,
        handshake::server::{Callback, ErrorResponse, Request, Response},
        http::{HeaderValue, StatusCode, header::SEC_WEBSOCKET_PROTOCOL},
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

/// A push of `/feed`: with [`FEED_EVERY`] 640 KB/s, enough to fill a queue in seconds and little
/// enough to cost nothing.
const FEED_BYTES: usize = 32 * 1024;
const FEED_EVERY: Duration = Duration::from_millis(50);
const PING_EVERY: Duration = Duration::from_secs(15);
const CRASH_AFTER: Duration = Duration::from_secs(12);

type Socket = WebSocketStream<TcpStream>;

/// Listens on `port`, or on any free one if it is taken.
pub async fn listen(port: u16) -> anyhow::Result<TcpListener> {
    match TcpListener::bind(("127.0.0.1", port)).await {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            TcpListener::bind(("127.0.0.1", 0)).await
        }
        bound => bound,
    }
    .with_context(|| format!("cannot listen on 127.0.0.1:{port}"))
}

/// Serves until it is dropped.
pub async fn serve(listener: TcpListener) -> anyhow::Result<()> {
    let (chat, _) = broadcast::channel(64);
    loop {
        let (stream, peer) = listener.accept().await.context("cannot accept")?;
        let chat = chat.clone();
        tokio::spawn(async move {
            // What clients do to this server is the demo's subject, not an error of the program.
            if let Err(error) = connection(stream, chat).await {
                tracing::debug!(%peer, "ended: {error}");
            }
        });
    }
}

async fn connection(
    stream: TcpStream,
    chat: broadcast::Sender<Utf8Bytes>,
) -> Result<(), tungstenite::Error> {
    stream.set_nodelay(true)?;
    let mut path = String::new();
    let socket = accept_hdr_async(stream, Door { path: &mut path }).await?;
    match path.as_str() {
        "/feed" => feed(socket).await,
        "/crash" => crash(socket).await,
        "/echo" | "/upload" => answer(socket).await,
        _ => room(socket, &chat).await,
    }
}

/// Whom the server lets in.
struct Door<'a> {
    path: &'a mut String,
}

impl Callback for Door<'_> {
    fn on_request(
        self,
        request: &Request,
        mut response: Response,
    ) -> Result<Response, ErrorResponse> {
        request.uri().path().clone_into(self.path);
        if self.path == "/admin" {
            let mut refused = ErrorResponse::new(Some("members only\n".into()));
            *refused.status_mut() = StatusCode::FORBIDDEN;
            return Err(refused);
        }
        let offered = request.headers().get(SEC_WEBSOCKET_PROTOCOL);
        if offered.is_some_and(|offered| offered == "chat.v1") {
            let selected = HeaderValue::from_static("chat.v1");
            response
                .headers_mut()
                .insert(SEC_WEBSOCKET_PROTOCOL, selected);
        }
        Ok(response)
    }
}

/// Everyone hears what one says; the server pings now and then.
async fn room(
    mut socket: Socket,
    chat: &broadcast::Sender<Utf8Bytes>,
) -> Result<(), tungstenite::Error> {
    let mut heard = chat.subscribe();
    let mut ping = ticks(PING_EVERY);
    loop {
        tokio::select! {
            message = socket.next() => match message.transpose()? {
                None => return Ok(()),
                Some(Message::Text(text)) => {
                    // Fails only if nobody listens, and this connection does.
                    let _ = chat.send(text);
                }
                Some(_) => {}
            },
            said = heard.recv() => match said {
                Ok(said) => socket.send(Message::Text(said)).await?,
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return Ok(()),
            },
            _ = ping.tick() => socket.send(Message::Ping("chat".into())).await?,
        }
    }
}

/// Text comes back as it is, of binary only the size.
async fn answer(mut socket: Socket) -> Result<(), tungstenite::Error> {
    while let Some(message) = socket.next().await.transpose()? {
        match message {
            Message::Text(text) => socket.send(Message::Text(text)).await?,
            Message::Binary(bytes) => {
                let receipt = format!("{{\"stored\":{}}}", bytes.len());
                socket.send(Message::text(receipt)).await?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// Pushes at a steady rate, whether or not the client keeps up.
async fn feed(mut socket: Socket) -> Result<(), tungstenite::Error> {
    let payload = Bytes::from(vec![0x5a; FEED_BYTES]);
    let mut push = ticks(FEED_EVERY);
    loop {
        tokio::select! {
            message = socket.next() => if message.transpose()?.is_none() {
                return Ok(());
            },
            _ = push.tick() => socket.send(Message::Binary(payload.clone())).await?,
        }
    }
}

/// Fails after a while, as a handler with a bug does.
async fn crash(mut socket: Socket) -> Result<(), tungstenite::Error> {
    let fails = tokio::time::sleep(CRASH_AFTER);
    tokio::pin!(fails);
    loop {
        tokio::select! {
            message = socket.next() => if message.transpose()?.is_none() {
                return Ok(());
            },
            () = &mut fails => break,
        }
    }
    let frame = CloseFrame {
        code: CloseCode::Error,
        reason: "internal error".into(),
    };
    socket.close(Some(frame)).await?;
    while socket.next().await.transpose()?.is_some() {}
    Ok(())
}

fn ticks(every: Duration) -> Interval {
    let mut interval = tokio::time::interval_at(tokio::time::Instant::now() + every, every);
    interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
    interval
}
