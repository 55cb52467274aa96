//! Both ends of a WebSocket in the hand of the test: every byte, and how it is cut.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::{
    agent::Service,
    ledger::Ledger,
    port,
    process::own_name,
    wire::{Connection, Role, Wire},
    within,
};

pub const CONTINUATION: u8 = 0;
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;
pub const FIN: u8 = 0x80;
pub const RSV1: u8 = 0x40;
pub const RSV2: u8 = 0x20;

/// What the tests mask with.
pub const MASK: [u8; 4] = [0x5a, 0x01, 0xc3, 0x7f];

/// A request with the key of RFC 6455, section 1.3.
pub fn request(path: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    .into_bytes()
}

/// The answer to [`request`].
pub fn response() -> Vec<u8> {
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
      Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
        .to_vec()
}

/// Who writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Client,
    Server,
}

impl Side {
    pub const BOTH: [Self; 2] = [Self::Client, Self::Server];

    /// A whole frame of this side, masked if it must be.
    pub fn frame(self, first: u8, payload: &[u8]) -> Vec<u8> {
        frame(first, self == Self::Client, payload)
    }

    /// A Close frame of this side.
    pub fn close(self, code: u16, reason: &str) -> Vec<u8> {
        let mut payload = code.to_be_bytes().to_vec();
        payload.extend_from_slice(reason.as_bytes());
        self.frame(FIN | CLOSE, &payload)
    }
}

/// A frame; `first` is FIN, RSV and opcode.
pub fn frame(first: u8, masked: bool, payload: &[u8]) -> Vec<u8> {
    let mut bytes = header(first, masked, payload.len() as u64);
    let at = bytes.len();
    bytes.extend_from_slice(payload);
    if masked {
        for (byte, mask) in bytes[at..].iter_mut().zip(MASK.iter().cycle()) {
            *byte ^= mask;
        }
    }
    bytes
}

/// A frame's header in the shortest form.
pub fn header(first: u8, masked: bool, length: u64) -> Vec<u8> {
    let mask_bit = u8::from(masked) << 7;
    let mut bytes = vec![first];
    match length {
        0..=125 => bytes.push(mask_bit | length as u8),
        126..=0xffff => {
            bytes.push(mask_bit + 126);
            bytes.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            bytes.push(mask_bit + 127);
            bytes.extend_from_slice(&length.to_be_bytes());
        }
    }
    if masked {
        bytes.extend_from_slice(&MASK);
    }
    bytes
}

/// A listener on a port of its own.
///
/// # Panics
///
/// If it cannot listen.
pub fn listen() -> TcpListener {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port::free())).expect("a free port")
}

/// A connection, not accepted yet.
///
/// # Panics
///
/// If it is refused.
pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(10)).expect("it listens");
    stream.set_nodelay(true).expect("a TCP socket");
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("a TCP socket");
    stream
}

/// The other end of a connection.
///
/// # Panics
///
/// If there is none.
pub fn accept(listener: &TcpListener) -> TcpStream {
    let (stream, _) = listener.accept().expect("somebody connects");
    stream.set_nodelay(true).expect("a TCP socket");
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("a TCP socket");
    stream
}

/// Writes on one end and reads all of it on the other.
///
/// # Panics
///
/// If the connection breaks.
pub fn pass(from: &TcpStream, to: &TcpStream, bytes: &[u8]) {
    pass_in_pieces(from, to, bytes, bytes.len());
}

/// As [`pass`], in writes of `piece` bytes.
///
/// # Panics
///
/// If the connection breaks.
pub fn pass_in_pieces(mut from: &TcpStream, mut to: &TcpStream, bytes: &[u8], piece: usize) {
    for part in bytes.chunks(piece) {
        from.write_all(part).expect("it can be written");
    }
    let mut read = vec![0; bytes.len()];
    to.read_exact(&mut read).expect("it arrives");
    assert_eq!(read, bytes);
}

/// Reads an HTTP head.
///
/// # Panics
///
/// If none comes.
pub fn read_head(mut stream: &TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("a head arrives");
        head.push(byte[0]);
    }
    String::from_utf8_lossy(&head).into_owned()
}

/// An open WebSocket between two sockets of this process. What either end writes is read at the
/// other at once.
pub struct Pair {
    pub client: End,
    pub server: End,
    pub port: u16,
    wire: Wire,
    counter: Connection,
}

/// One end.
pub struct End {
    pub stream: TcpStream,
    written: u64,
    read: Arc<AtomicU64>,
    reader: Option<JoinHandle<()>>,
}

impl Pair {
    /// Opens one on a port of its own.
    pub fn open() -> Self {
        Self::open_at(&listen())
    }

    /// # Panics
    ///
    /// If the handshake fails.
    pub fn open_at(listener: &TcpListener) -> Self {
        let client = connect(listener.local_addr().expect("bound"));
        let server = accept(listener);
        pass(&client, &server, &request("/raw"));
        pass(&server, &client, &response());
        Self::upgraded(client, server)
    }

    /// Takes two ends whose handshake is over.
    ///
    /// # Panics
    ///
    /// If they are not TCP sockets.
    pub fn upgraded(client: TcpStream, server: TcpStream) -> Self {
        let wire = Wire::default();
        Self {
            port: client.peer_addr().expect("connected").port(),
            counter: Connection::upgraded(wire.clone(), Role::Client),
            wire,
            client: End::new(client),
            server: End::new(server),
        }
    }

    /// Writes frames in one call.
    pub fn write(&mut self, side: Side, bytes: &[u8]) {
        self.write_in_pieces(side, bytes, bytes.len().max(1));
    }

    /// Writes frames in calls of `piece` bytes.
    ///
    /// # Panics
    ///
    /// If the connection breaks.
    pub fn write_in_pieces(&mut self, side: Side, bytes: &[u8], piece: usize) {
        for part in bytes.chunks(piece) {
            self.end(side)
                .stream
                .write_all(part)
                .expect("it can be written");
        }
        self.wrote(side, bytes);
    }

    /// Notes what was written in another way.
    pub fn wrote(&mut self, side: Side, bytes: &[u8]) {
        self.end(side).written += bytes.len() as u64;
        match side {
            Side::Client => self.counter.sent(bytes),
            Side::Server => self.counter.received(bytes),
        }
    }

    /// Notes frames that passed with the handshake, and were read with it.
    pub fn passed_before(&mut self, side: Side, bytes: &[u8]) {
        self.wrote(side, bytes);
        self.end(side).written -= bytes.len() as u64;
    }

    /// Waits until either end has read what the other wrote.
    pub fn settle(&self) {
        within(Duration::from_secs(30), || {
            for (from, to) in [(&self.client, &self.server), (&self.server, &self.client)] {
                let read = to.read.load(Ordering::Acquire);
                if read < from.written {
                    return Err(format!("{read} of {} bytes read", from.written));
                }
            }
            Ok(())
        });
    }

    /// The closing handshake, begun by `side`; then either end of TCP.
    pub fn close(&mut self, side: Side, code: u16) {
        let other = if side == Side::Client {
            Side::Server
        } else {
            Side::Client
        };
        let reason = "done";
        self.write(side, &side.close(code, reason));
        self.settle();
        self.write(other, &other.close(code, reason));
        self.settle();
        self.hang_up(Side::Server);
        self.hang_up(Side::Client);
    }

    /// Ends one end: a FIN.
    pub fn hang_up(&mut self, side: Side) {
        let _ = self.end(side).stream.shutdown(Shutdown::Write);
    }

    /// What passed, from the client's point of view, and the handshake.
    pub fn client_ledger(&self) -> Ledger {
        self.wire.ledger().with("handshakes.accepted.101", 1)
    }

    /// What passed, from the server's point of view, and the handshake.
    pub fn server_ledger(&self) -> Ledger {
        self.wire
            .ledger()
            .mirrored()
            .with("handshakes.accepted.101", 1)
    }

    /// What wsmon is to say of both ends, which this process holds; `ends` is how the connection
    /// ended for the client and for the server, like `1000.close_frame.local`.
    pub fn services(&self, ends: Option<(&str, &str)>) -> Vec<Service> {
        let name = own_name();
        let (mut client, mut server) = (self.client_ledger(), self.server_ledger());
        if let Some((client_end, server_end)) = ends {
            client.add(&format!("closed.{client_end}"), 1);
            server.add(&format!("closed.{server_end}"), 1);
        }
        vec![
            Service::client(&name, self.port, client),
            Service::server(&name, self.port, server),
        ]
    }

    /// As [`Pair::services`], with one more count at both ends.
    pub fn services_with(&self, key: &str) -> Vec<Service> {
        let mut services = self.services(None);
        for service in &mut services {
            service.expected.add(key, 1);
        }
        services
    }

    pub fn end(&mut self, side: Side) -> &mut End {
        match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        }
    }
}

impl End {
    /// Bytes that were read here so far.
    pub fn arrived(&self) -> Arc<AtomicU64> {
        self.read.clone()
    }

    /// Waits until the other end's FIN or RST has come.
    ///
    /// # Panics
    ///
    /// If none comes.
    pub fn await_end(&self) {
        within(Duration::from_secs(10), || match &self.reader {
            Some(reader) if !reader.is_finished() => Err("the other end is still there".to_owned()),
            _ => Ok(()),
        });
    }

    fn new(stream: TcpStream) -> Self {
        let read = Arc::new(AtomicU64::new(0));
        let (mut source, counter) = (stream.try_clone().expect("an open socket"), read.clone());
        source.set_read_timeout(None).expect("a TCP socket");
        let reader = thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            while let Ok(count @ 1..) = source.read(&mut buffer) {
                counter.fetch_add(count as u64, Ordering::Release);
            }
        });
        Self {
            stream,
            written: 0,
            read,
            reader: Some(reader),
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}
