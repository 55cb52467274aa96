//! The demo's clients, one behaviour each.

use std::time::Duration;

use anyhow::Context as _;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::{
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::{Instant, interval, sleep, sleep_until, timeout},
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{
        self, ClientRequestBuilder, Message,
        http::Uri,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

/// One line of what `wsmon demo` says, and how many clients of the kind there are.
pub struct Kind {
    pub name: &'static str,
    pub path: &'static str,
    pub does: &'static str,
    pub count: u8,
    behaviour: Behaviour,
}

#[derive(Clone, Copy, Debug)]
enum Behaviour {
    Chatty,
    Quiet,
    Upload,
    Slow,
    Dying,
    Flapping,
    Rejected,
    Leaving,
    Unlucky,
}

pub const KINDS: &[Kind] = &[
    Kind {
        name: "chatty",
        path: "/chat",
        does: "send a text message every 500 ms, and hear each other's",
        count: 4,
        behaviour: Behaviour::Chatty,
    },
    Kind {
        name: "quiet",
        path: "/echo",
        does: "say nothing; ping every 5 s",
        count: 2,
        behaviour: Behaviour::Quiet,
    },
    Kind {
        name: "uploader",
        path: "/upload",
        does: "sends 64 KiB of binary every second",
        count: 1,
        behaviour: Behaviour::Upload,
    },
    Kind {
        name: "slow",
        path: "/feed",
        does: "stops reading for 8 s again and again: the server's send queue grows",
        count: 1,
        behaviour: Behaviour::Slow,
    },
    Kind {
        name: "dying",
        path: "/chat",
        does: "is gone after 7 s without a Close frame (TCP reset: 1006)",
        count: 1,
        behaviour: Behaviour::Dying,
    },
    Kind {
        name: "flapping",
        path: "/echo",
        does: "comes and goes every 2 s, closing with 1000 and 4001 in turn",
        count: 1,
        behaviour: Behaviour::Flapping,
    },
    Kind {
        name: "rejected",
        path: "/admin",
        does: "is refused with 403 every 5 s",
        count: 1,
        behaviour: Behaviour::Rejected,
    },
    Kind {
        name: "leaving",
        path: "/chat",
        does: "stays for 15 s, then goes away with 1001, like a browser tab",
        count: 1,
        behaviour: Behaviour::Leaving,
    },
    Kind {
        name: "unlucky",
        path: "/crash",
        does: "is dropped by the server with 1011 after 12 s",
        count: 1,
        behaviour: Behaviour::Unlucky,
    },
];

/// Runs all of them against the server on 127.0.0.1 until it is dropped.
pub async fn run(port: u16) -> anyhow::Result<()> {
    let mut clients = JoinSet::new();
    for kind in KINDS {
        for number in 1..=kind.count {
            clients.spawn(live(Client { kind, number, port }));
        }
    }
    while let Some(ended) = clients.join_next().await {
        ended.context("a client of the demo failed")?;
    }
    Ok(())
}

#[derive(Clone, Copy)]
struct Client {
    kind: &'static Kind,
    number: u8,
    port: u16,
}

type Socket = WebSocketStream<TcpStream>;
type Outcome = Result<(), tungstenite::Error>;

/// One session after the other.
async fn live(client: Client) {
    // Not all in the same millisecond.
    sleep(Duration::from_millis(u64::from(client.number) * 120)).await;
    for turn in 0.. {
        let outcome = match client.kind.behaviour {
            Behaviour::Chatty => chatty(client).await,
            Behaviour::Quiet => quiet(client).await,
            Behaviour::Upload => upload(client).await,
            Behaviour::Slow => slow(client).await,
            Behaviour::Dying => dying(client).await,
            Behaviour::Flapping => flapping(client, turn).await,
            Behaviour::Rejected => rejected(client).await,
            Behaviour::Leaving => leaving(client).await,
            Behaviour::Unlucky => unlucky(client).await,
        };
        if let Err(error) = outcome {
            tracing::debug!(client = client.kind.name, "session ended: {error}");
        }
        sleep(Duration::from_secs(1)).await;
    }
}

async fn chatty(client: Client) -> Outcome {
    let mut socket = client.connect().await?;
    let mut say = interval(Duration::from_millis(500));
    let mut count = 0u64;
    loop {
        tokio::select! {
            message = socket.next() => if message.transpose()?.is_none() {
                return Ok(());
            },
            _ = say.tick() => {
                count += 1;
                let text = format!("message {count} of {} {}", client.kind.name, client.number);
                socket.send(Message::text(text)).await?;
            }
        }
    }
}

async fn quiet(client: Client) -> Outcome {
    let mut socket = client.connect().await?;
    let mut ping = interval(Duration::from_secs(5));
    let mut tag = 0u32;
    loop {
        tokio::select! {
            message = socket.next() => if message.transpose()?.is_none() {
                return Ok(());
            },
            _ = ping.tick() => {
                tag += 1;
                socket.send(Message::Ping(tag.to_be_bytes().to_vec().into())).await?;
            }
        }
    }
}

async fn upload(client: Client) -> Outcome {
    let mut socket = client.connect().await?;
    let mut every = interval(Duration::from_secs(1));
    loop {
        every.tick().await;
        socket.send(Message::binary(vec![0xa5; 64 * 1024])).await?;
        if socket.next().await.transpose()?.is_none() {
            return Ok(());
        }
    }
}

async fn slow(client: Client) -> Outcome {
    // A small window, so that the data wait at the server and not here.
    let mut socket = client.connect_with(Some(16 * 1024)).await?;
    loop {
        read_for(&mut socket, Duration::from_secs(6)).await?;
        sleep(Duration::from_secs(8)).await;
    }
}

async fn dying(client: Client) -> Outcome {
    let mut socket = client.connect().await?;
    read_for(&mut socket, Duration::from_secs(7)).await?;
    socket.get_ref().set_zero_linger()?;
    Ok(())
}

async fn flapping(client: Client, turn: u64) -> Outcome {
    let mut socket = client.connect().await?;
    socket.send(Message::text("here I am")).await?;
    read_for(&mut socket, Duration::from_secs(1)).await?;
    if turn.is_multiple_of(2) {
        leave(socket, CloseCode::Normal, "done").await
    } else {
        leave(socket, CloseCode::Library(4001), "token expired").await
    }
}

async fn rejected(client: Client) -> Outcome {
    let refusal = client.connect().await.map(drop);
    sleep(Duration::from_secs(4)).await;
    refusal
}

async fn leaving(client: Client) -> Outcome {
    let mut socket = client.connect().await?;
    read_for(&mut socket, Duration::from_secs(15)).await?;
    leave(socket, CloseCode::Away, "").await
}

async fn unlucky(client: Client) -> Outcome {
    let mut socket = client.connect().await?;
    while socket.next().await.transpose()?.is_some() {}
    Ok(())
}

impl Client {
    async fn connect(self) -> Result<Socket, tungstenite::Error> {
        self.connect_with(None).await
    }

    async fn connect_with(self, receive_buffer: Option<u32>) -> Result<Socket, tungstenite::Error> {
        let socket = TcpSocket::new_v4()?;
        if let Some(bytes) = receive_buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        let stream = socket.connect(([127, 0, 0, 1], self.port).into()).await?;
        stream.set_nodelay(true)?;
        let uri: Uri = format!("ws://127.0.0.1:{}{}", self.port, self.kind.path).parse()?;
        let mut request = ClientRequestBuilder::new(uri)
            .with_header("User-Agent", format!("wsmon-demo/{}", self.kind.name));
        if self.kind.path == "/chat" {
            request = request.with_sub_protocol("chat.v1");
        }
        Ok(client_async(request, stream).await?.0)
    }
}

/// Reads whatever comes for so long.
async fn read_for(socket: &mut Socket, time: Duration) -> Outcome {
    let end = Instant::now() + time;
    loop {
        tokio::select! {
            message = socket.next() => if message.transpose()?.is_none() {
                return Err(tungstenite::Error::ConnectionClosed);
            },
            () = sleep_until(end) => return Ok(()),
        }
    }
}

async fn leave(mut socket: Socket, code: CloseCode, reason: &'static str) -> Outcome {
    socket
        .close(Some(CloseFrame {
            code,
            reason: reason.into(),
        }))
        .await?;
    // The server's Close comes back behind what it was still sending.
    let goodbye = async {
        while socket.next().await.transpose()?.is_some() {}
        Ok(())
    };
    timeout(Duration::from_secs(2), goodbye)
        .await
        .unwrap_or(Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_a_dozen_clients_and_each_kind_says_what_it_does() {
        assert!(KINDS.iter().map(|kind| kind.count).sum::<u8>() >= 12);
        assert!(
            KINDS
                .iter()
                .all(|kind| !kind.does.is_empty() && kind.path.starts_with('/'))
        );
    }

    #[tokio::test]
    async fn the_server_takes_the_chat_and_refuses_the_admin() {
        let listener = super::super::server::listen(0).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(super::super::server::serve(listener));
        let of = |behaviour: &str| {
            let kind = KINDS.iter().find(|kind| kind.name == behaviour).unwrap();
            Client {
                kind,
                number: 1,
                port,
            }
        };
        assert!(of("chatty").connect().await.is_ok());
        let refusal = of("rejected").connect().await.unwrap_err();
        assert!(matches!(refusal, tungstenite::Error::Http(response) if response.status() == 403));
    }
}
