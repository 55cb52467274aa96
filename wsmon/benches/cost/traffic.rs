//! A connection over loopback and what passes it.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    thread,
};

use anyhow::{Context as _, Result, ensure};

use super::cgroup::Cgroup;

/// What each send carries.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Load {
    /// So many WebSocket frames of [`PAYLOAD`] bytes, masked from the client.
    Frames(u64),
    /// A piece of a WebSocket frame of [`LARGE_FRAME`] bytes.
    LargeFrame,
    /// Bytes that are neither HTTP nor WebSocket, as many as one frame has.
    Other,
    /// A whole request by GET and its whole answer, on a connection that is kept.
    Http,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pattern {
    /// The client sends, and the server only reads.
    Stream,
    /// The client sends and waits for an answer like it.
    PingPong,
}

/// Whose socket is in the cgroup. Only one is, so that all packets of a stream meet the egress
/// program, or all the ingress program, and their acknowledgments the other.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Inside {
    Client,
    Server,
}

/// Sends of a stream that are under way together: fewer than the first congestion window (RFC
/// 6928), so that none waits for an acknowledgment.
const BURST: u64 = 8;
/// Bytes of payload in a frame.
const PAYLOAD: usize = 32;
/// Bytes of payload in a large frame, its 14 bytes of header not included.
const LARGE_FRAME: usize = (1 << 20) - LARGE_HEADER;
const LARGE_HEADER: usize = 14;
/// Bytes of a large frame that go into a send.
const PIECE: usize = 1 << 10;

const UPGRADE: &[u8] = b"GET /bench HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const SWITCHING: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
const GET: &[u8] = b"GET /api/v1/items?page=2 HTTP/1.1\r\nHost: localhost:8080\r\n\
    User-Agent: wsmon-bench\r\nAccept: application/json\r\nAccept-Encoding: gzip, br\r\n\
    Connection: keep-alive\r\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\
    Content-Length: 2\r\n\r\n{}";

/// Both ends of a connection.
pub struct Pair {
    client: TcpStream,
    server: TcpStream,
    /// Bytes of the large frame under way that were sent.
    passed: usize,
}

impl Pair {
    /// Connects, and upgrades to a WebSocket where the load is one's.
    pub fn open(cgroup: &Cgroup, inside: Inside, load: Load) -> Result<Self> {
        let listen = || TcpListener::bind("127.0.0.1:0");
        // What a listener accepts belongs to the listener's cgroup.
        let listener = match inside {
            Inside::Server => cgroup.inside(listen)??,
            Inside::Client => listen()?,
        };
        let address = listener.local_addr()?;
        let client = match inside {
            Inside::Client => cgroup.inside(|| TcpStream::connect(address))??,
            Inside::Server => TcpStream::connect(address)?,
        };
        let (server, _) = listener.accept()?;
        for end in [&client, &server] {
            end.set_nodelay(true)?;
        }
        let mut pair = Self {
            client,
            server,
            passed: 0,
        };
        if matches!(load, Load::Frames(_) | Load::LargeFrame) {
            pair.client.write_all(UPGRADE)?;
            pair.server.read_exact(&mut vec![0; UPGRADE.len()])?;
            pair.server.write_all(SWITCHING)?;
            pair.client.read_exact(&mut vec![0; SWITCHING.len()])?;
        }
        Ok(pair)
    }

    /// Lets so many sends pass.
    pub fn run(&mut self, load: Load, pattern: Pattern, sends: u64) -> Result<()> {
        match pattern {
            Pattern::Stream => self.stream(load, sends),
            Pattern::PingPong => self.ping_pong(load, sends),
        }
    }

    /// One thread does both, a burst after the other: a receiver that is late for want of a CPU
    /// would let several sends grow together into one packet.
    fn stream(&mut self, load: Load, sends: u64) -> Result<()> {
        let bytes = bytes(load, true);
        let mut buffer = vec![0; 1 << 16];
        let mut left = sends;
        while left > 0 {
            let burst = left.min(BURST);
            let mut outstanding = 0;
            for _ in 0..burst {
                let send = if load == Load::LargeFrame {
                    let at = if self.passed == 0 { 0 } else { PIECE };
                    self.passed = (self.passed + PIECE) % (LARGE_FRAME + LARGE_HEADER);
                    &bytes[at..at + PIECE]
                } else {
                    &bytes[..]
                };
                self.client.write_all(send)?;
                outstanding += send.len();
            }
            while outstanding > 0 {
                let count = self.server.read(&mut buffer)?;
                ensure!(count > 0, "the stream ended");
                outstanding -= count;
            }
            left -= burst;
        }
        Ok(())
    }

    fn ping_pong(&mut self, load: Load, sends: u64) -> Result<()> {
        let (there, back) = (bytes(load, true), bytes(load, false));
        let (mut asked, mut answered) = (vec![0; there.len()], vec![0; back.len()]);
        let (client, server) = (&mut self.client, &mut self.server);
        thread::scope(|scope| {
            let echo = scope.spawn(move || -> Result<()> {
                for _ in 0..sends {
                    server.read_exact(&mut asked).context("no ping")?;
                    server.write_all(&back)?;
                }
                Ok(())
            });
            for _ in 0..sends {
                client.write_all(&there)?;
                client.read_exact(&mut answered).context("no pong")?;
            }
            echo.join().expect("the echo does not panic")
        })
    }
}

/// What a send carries. For a large frame: the first piece, and then another one.
fn bytes(load: Load, from_client: bool) -> Vec<u8> {
    match load {
        Load::Frames(count) => frame(from_client).repeat(count as usize),
        Load::Other => vec![0xa5; frame(from_client).len()],
        Load::Http if from_client => GET.to_vec(),
        Load::Http => ANSWER.to_vec(),
        Load::LargeFrame => {
            let mut pieces = vec![0x5a; 2 * PIECE];
            pieces[..2].copy_from_slice(&[BINARY_FIN, MASKED | 127]);
            pieces[2..10].copy_from_slice(&(LARGE_FRAME as u64).to_be_bytes());
            pieces
        }
    }
}

const BINARY_FIN: u8 = 0x82;
const MASKED: u8 = 0x80;

fn frame(masked: bool) -> Vec<u8> {
    let mut frame = vec![BINARY_FIN, PAYLOAD as u8];
    if masked {
        frame[1] |= MASKED;
        frame.extend([1, 2, 3, 4]);
    }
    frame.resize(frame.len() + PAYLOAD, 7);
    frame
}
