//! Counts the frames in the bytes that a program writes to and reads from its socket: the truth
//! that wsmon is compared with. Written for whole, well-formed streams, and on purpose without a
//! line in common with wsmon's own parser.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::ledger::Ledger;

/// Both directions of all connections of one program.
#[derive(Clone, Default)]
pub struct Wire(Arc<Mutex<Ledger>>);

impl Wire {
    /// What passed so far.
    ///
    /// # Panics
    ///
    /// If another thread panicked while it counted.
    pub fn ledger(&self) -> Ledger {
        self.0.lock().expect("not poisoned").clone()
    }

    /// Counts a stream's bytes, handshake included.
    pub fn tap<S>(&self, stream: S, role: Role) -> Tapped<S> {
        Tapped {
            stream,
            connection: Connection::new(self.clone(), role),
        }
    }
}

/// Which end of the connection is watched.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Server,
    Client,
}

/// One connection: HTTP until a 101 has passed, frames after it.
pub struct Connection {
    wire: Wire,
    role: Role,
    sent: Stream,
    received: Stream,
    upgraded: bool,
}

impl Connection {
    pub fn new(wire: Wire, role: Role) -> Self {
        let (sent, received) = (Stream::default(), Stream::default());
        Self {
            wire,
            role,
            sent,
            received,
            upgraded: false,
        }
    }

    /// A connection whose handshake is over.
    pub fn upgraded(wire: Wire, role: Role) -> Self {
        Self {
            upgraded: true,
            ..Self::new(wire, role)
        }
    }

    pub fn sent(&mut self, bytes: &[u8]) {
        self.sent.pending.extend_from_slice(bytes);
        self.count();
    }

    pub fn received(&mut self, bytes: &[u8]) {
        self.received.pending.extend_from_slice(bytes);
        self.count();
    }

    fn count(&mut self) {
        if !self.upgraded {
            let (request, response) = match self.role {
                Role::Server => (&mut self.received.pending, &mut self.sent.pending),
                Role::Client => (&mut self.sent.pending, &mut self.received.pending),
            };
            let Some(status) = find(response, b"HTTP/1.1 101") else {
                return;
            };
            let Some(end) = find(&response[status..], HEAD_END) else {
                return;
            };
            response.drain(..status + end + HEAD_END.len());
            let last = request
                .windows(HEAD_END.len())
                .rposition(|part| part == HEAD_END);
            request.drain(..last.map_or(0, |at| at + HEAD_END.len()));
            self.upgraded = true;
        }
        let mut ledger = self.wire.0.lock().expect("not poisoned");
        self.sent.count("sent", &mut ledger);
        self.received.count("received", &mut ledger);
    }
}

const HEAD_END: &[u8] = b"\r\n\r\n";
const OPCODES: [&str; 16] = {
    let mut names = ["reserved"; 16];
    names[0] = "continuation";
    names[1] = "text";
    names[2] = "binary";
    names[8] = "close";
    names[9] = "ping";
    names[10] = "pong";
    names
};

/// One direction.
#[derive(Default)]
struct Stream {
    pending: Vec<u8>,
    /// Payload of the current frame that has not passed yet.
    rest: u64,
    /// The current frame ends a message: its type and whether it was compressed.
    ends: Option<(&'static str, bool)>,
    message: Option<(&'static str, bool)>,
}

impl Stream {
    fn count(&mut self, direction: &str, ledger: &mut Ledger) {
        let mut at = 0;
        loop {
            let skip = self.rest.min((self.pending.len() - at) as u64);
            at += skip as usize;
            self.rest -= skip;
            if self.rest > 0 {
                break;
            }
            if let Some((kind, compressed)) = self.ends.take() {
                ledger.add(&format!("{direction}.messages.{kind}"), 1);
                ledger.add(&format!("{direction}.compressed"), u64::from(compressed));
            }
            let Some((header, payload)) = header(&self.pending[at..]) else {
                break;
            };
            let (first, opcode) = (
                self.pending[at],
                OPCODES[usize::from(self.pending[at] & 15)],
            );
            at += header;
            self.rest = payload;
            ledger.add(&format!("{direction}.frames.{opcode}"), 1);
            ledger.add(&format!("{direction}.payload"), payload);
            ledger.add(&format!("{direction}.wire"), header as u64 + payload);
            match opcode {
                "text" | "binary" => self.message = Some((opcode, first & 0x40 != 0)),
                "continuation" => {}
                _ => continue,
            }
            if first & 0x80 != 0 {
                self.ends = self.message.take();
            }
        }
        self.pending.drain(..at);
    }
}

/// Length of the header at the start of `bytes`, and of its payload; `None` if it is cut.
fn header(bytes: &[u8]) -> Option<(usize, u64)> {
    let second = *bytes.get(1)?;
    let (mut header, payload) = match second & 0x7f {
        126 => (
            4,
            u64::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)),
        ),
        127 => (10, u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)),
        short => (2, u64::from(short)),
    };
    if second & 0x80 != 0 {
        header += 4;
    }
    (bytes.len() >= header).then_some((header, payload))
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|part| part == what)
}

/// A stream whose bytes are counted as they pass.
pub struct Tapped<S> {
    stream: S,
    connection: Connection,
}

impl<S: AsyncRead + Unpin> AsyncRead for Tapped<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.connection.received(&buf.filled()[before..]);
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tapped<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if let Poll::Ready(Ok(written)) = result {
            self.connection.sent(&bytes[..written]);
        }
        result
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_counted_however_the_bytes_are_cut() {
        let mut stream = b"HTTP/1.1 101 Switching Protocols\r\n\r\n".to_vec();
        stream.extend_from_slice(b"\x01\x02ab\x89\x00\x80\x01c\xc2\x7e\x00\x03xyz\x88\x02\x03\xe8");
        for chunk in 1..stream.len() {
            let wire = Wire::default();
            let mut connection = Connection::new(wire.clone(), Role::Server);
            connection.received(b"GET / HTTP/1.1\r\n\r\n");
            stream.chunks(chunk).for_each(|part| connection.sent(part));
            let expected = Ledger::new()
                .with("sent.frames.text", 1)
                .with("sent.frames.continuation", 1)
                .with("sent.frames.binary", 1)
                .with("sent.frames.ping", 1)
                .with("sent.frames.close", 1)
                .with("sent.messages.text", 1)
                .with("sent.messages.binary", 1)
                .with("sent.compressed", 1)
                .with("sent.payload", 2 + 1 + 3 + 2)
                .with("sent.wire", 8 + 2 * 5 + 2);
            assert_eq!(
                wire.ledger().difference(&expected),
                None,
                "chunks of {chunk}"
            );
        }
    }
}
