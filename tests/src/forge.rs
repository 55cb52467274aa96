//! Segments that no TCP sent.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

const SEND_QUEUE: libc::c_int = 2;
/// Leave repair mode without a window probe.
const REPAIR_OFF: libc::c_int = -1;

/// A segment that seems to come from one end of a connection.
pub struct Segment<'a> {
    pub sequence: u32,
    pub acknowledged: u32,
    pub payload: &'a [u8],
    pub checksum_is_right: bool,
}

/// The sequence number of the next byte that a socket will send. Needs CAP_NET_ADMIN.
pub fn next_sequence(stream: &TcpStream) -> io::Result<u32> {
    set(stream, libc::TCP_REPAIR, 1)?;
    set(stream, libc::TCP_REPAIR_QUEUE, SEND_QUEUE)?;
    let mut sequence = 0u32;
    let mut length = size_of::<u32>() as libc::socklen_t;
    // SAFETY: an open socket, and a place of the length given.
    let result = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_QUEUE_SEQ,
            (&raw mut sequence).cast(),
            &raw mut length,
        )
    };
    let error = io::Error::last_os_error();
    set(stream, libc::TCP_REPAIR, REPAIR_OFF)?;
    if result == 0 {
        Ok(sequence)
    } else {
        Err(error)
    }
}

/// Puts a segment on the wire as if `stream` had sent it. Needs CAP_NET_RAW, and IPv4.
///
/// # Panics
///
/// If the connection is not an IPv4 one.
pub fn send(stream: &TcpStream, segment: &Segment) -> io::Result<()> {
    let (SocketAddr::V4(from), SocketAddr::V4(to)) = (stream.local_addr()?, stream.peer_addr()?)
    else {
        panic!("IPv4 only")
    };
    let length = (20 + segment.payload.len()) as u16;
    let mut tcp = Vec::new();
    tcp.extend_from_slice(&from.port().to_be_bytes());
    tcp.extend_from_slice(&to.port().to_be_bytes());
    tcp.extend_from_slice(&segment.sequence.to_be_bytes());
    tcp.extend_from_slice(&segment.acknowledged.to_be_bytes());
    // Five words of header, PSH and ACK, a window, no urgent data.
    tcp.extend_from_slice(&[0x50, 0x18, 0xff, 0xff, 0, 0, 0, 0]);
    tcp.extend_from_slice(segment.payload);
    let mut sum = checksum(*from.ip(), *to.ip(), length, &tcp);
    if !segment.checksum_is_right {
        sum ^= 0x5555;
    }
    tcp[16..18].copy_from_slice(&sum.to_be_bytes());

    let mut packet = vec![0x45, 0];
    packet.extend_from_slice(&(20 + length).to_be_bytes());
    packet.extend_from_slice(&[0, 0, 0x40, 0, 64, libc::IPPROTO_TCP as u8, 0, 0]);
    packet.extend_from_slice(&from.ip().octets());
    packet.extend_from_slice(&to.ip().octets());
    packet.extend_from_slice(&tcp);

    // SAFETY: constant arguments; the descriptor is checked before it is owned.
    let raw = unsafe {
        match libc::socket(
            libc::AF_INET,
            libc::SOCK_RAW | libc::SOCK_CLOEXEC,
            libc::IPPROTO_RAW,
        ) {
            -1 => return Err(io::Error::last_os_error()),
            descriptor => OwnedFd::from_raw_fd(descriptor),
        }
    };
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: 0,
        sin_addr: libc::in_addr {
            s_addr: u32::from(*to.ip()).to_be(),
        },
        sin_zero: [0; 8],
    };
    // SAFETY: buffer and address are as long as said.
    let sent = unsafe {
        libc::sendto(
            raw.as_raw_fd(),
            packet.as_ptr().cast(),
            packet.len(),
            0,
            (&raw const address).cast(),
            size_of_val(&address) as libc::socklen_t,
        )
    };
    if sent < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// The checksum of RFC 9293, section 3.1.
fn checksum(from: Ipv4Addr, to: Ipv4Addr, length: u16, tcp: &[u8]) -> u16 {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&from.octets());
    bytes.extend_from_slice(&to.octets());
    bytes.extend_from_slice(&[0, libc::IPPROTO_TCP as u8]);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(tcp);
    let words = bytes.chunks(2).map(|pair| {
        u64::from(u16::from_be_bytes([
            pair[0],
            pair.get(1).copied().unwrap_or(0),
        ]))
    });
    let mut sum: u64 = words.sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn set(stream: &TcpStream, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    // SAFETY: an open socket, and a value of the length given.
    let result = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            option,
            (&raw const value).cast(),
            size_of_val(&value) as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
