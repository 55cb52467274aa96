//! The TCP segment in a packet: `skb->data` is the IP header in cgroup_skb, both ways. The
//! headers lie in the linear part: tcp_v4_rcv and tcp_v6_rcv pull them, and output builds them
//! there (Linux 5.10 to 6.18).

use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_skb_load_bytes};
use wsmon_common::cursor::AddressPair;

/// No more data from the sender (RFC 9293, section 3.1).
pub const FIN: u8 = 0x01;
/// The first segment of a connection.
pub const SYN: u8 = 0x02;
/// The acknowledgment number is valid.
const ACK: u8 = 0x10;
/// The connection is torn down.
pub const RST: u8 = 0x04;

const TCP: u8 = 6;

/// What matters of the headers.
#[derive(Clone, Copy)]
pub struct Segment {
    /// Sequence number of the first payload byte.
    pub sequence: u32,
    /// Where the TCP header begins, from the IP header on.
    pub tcp_at: u32,
    /// Where the payload begins, from the IP header on.
    pub payload: u32,
    /// Bytes of payload. From the packet's length: a BIG TCP packet has none in its IP header.
    pub len: u32,
    /// TCP flags.
    pub flags: u8,
    /// Whether this is IPv6.
    pub is_ipv6: bool,
}

impl Segment {
    /// Reads the headers; `None` if this is no TCP packet, or not all of its headers are there.
    ///
    /// # Safety
    ///
    /// `skb` is the program's context.
    #[inline(always)]
    pub unsafe fn read(skb: *mut __sk_buff) -> Option<Self> {
        // SAFETY: by the contract; every access below lies before `end`, which the verifier checks.
        unsafe {
            let data = (*skb).data as usize;
            let end = (*skb).data_end as usize;
            if data + 20 > end {
                return None;
            }
            let first = byte(data, 0);
            let tcp_at = match first >> 4 {
                4 if byte(data, 9) == TCP => (first as usize & 0x0f) * 4,
                6 if data + 40 <= end => {
                    if byte(data, 6) == TCP {
                        40
                    } else {
                        skip_extensions(data, end)?
                    }
                }
                _ => return None,
            };
            let tcp = data + tcp_at;
            if tcp + 20 > end {
                return None;
            }
            let header_len = (byte(tcp, 12) >> 4) as u32 * 4;
            let payload = tcp_at as u32 + header_len;
            let flags = byte(tcp, 13);
            let sequence = u32::from_be(((tcp + 4) as *const u32).read_unaligned());
            Some(Self {
                // A SYN takes a sequence number of its own, before the data of TCP Fast Open.
                sequence: sequence.wrapping_add(u32::from(flags & SYN != 0)),
                tcp_at: tcp_at as u32,
                payload,
                len: (*skb).len.checked_sub(payload)?,
                flags,
                is_ipv6: first >> 4 == 6,
            })
        }
    }

    /// The acknowledgment number: the next byte of the other direction. `None` without one.
    ///
    /// # Safety
    ///
    /// `skb` is the program's context.
    #[inline(always)]
    pub unsafe fn acknowledged(&self, skb: *mut __sk_buff) -> Option<u32> {
        if self.flags & ACK == 0 {
            return None;
        }
        // SAFETY: by the contract.
        let header = unsafe { self.tcp_header(skb)? };
        Some(u32::from_be_bytes([
            header[8], header[9], header[10], header[11],
        ]))
    }

    /// The addresses of a received packet, whose socket does not know them.
    ///
    /// # Safety
    ///
    /// `skb` is the program's context.
    #[inline(always)]
    pub unsafe fn addresses(&self, skb: *mut __sk_buff) -> Option<AddressPair> {
        // SAFETY: by the contract; the helper checks the offsets.
        unsafe {
            let tcp = self.tcp_header(skb)?;
            let mut pair = AddressPair {
                local: MAPPED,
                remote: MAPPED,
                remote_port: u32::from(u16::from_be_bytes([tcp[0], tcp[1]])),
                local_port: u32::from(u16::from_be_bytes([tcp[2], tcp[3]])),
            };
            let read = if self.is_ipv6 {
                bpf_skb_load_bytes(skb.cast(), 8, (&raw mut pair.remote).cast(), 16)
                    | bpf_skb_load_bytes(skb.cast(), 24, (&raw mut pair.local).cast(), 16)
            } else {
                bpf_skb_load_bytes(skb.cast(), 12, (&raw mut pair.remote[3]).cast(), 4)
                    | bpf_skb_load_bytes(skb.cast(), 16, (&raw mut pair.local[3]).cast(), 4)
            };
            if read == 0 { Some(pair) } else { None }
        }
    }

    /// # Safety
    ///
    /// `skb` is the program's context.
    #[inline(always)]
    unsafe fn tcp_header(&self, skb: *mut __sk_buff) -> Option<[u8; 12]> {
        let mut header = [0u8; 12];
        // SAFETY: by the contract; the helper checks the offset.
        let read =
            unsafe { bpf_skb_load_bytes(skb.cast(), self.tcp_at, header.as_mut_ptr().cast(), 12) };
        if read == 0 { Some(header) } else { None }
    }
}

/// The prefix of an IPv4-mapped IPv6 address (RFC 4291, section 2.5.5.2), in network byte order.
pub const MAPPED: [u32; 4] = [0, 0, 0xffff_u32.to_be(), 0];

/// Bytes before the TCP header, past the extension headers of IPv6 (RFC 8200, section 4).
///
/// # Safety
///
/// `data` and `end` are those of the packet, and the fixed header lies before `end`.
#[inline(always)]
unsafe fn skip_extensions(data: usize, end: usize) -> Option<usize> {
    // SAFETY: by the contract; every access lies before `end`, which the verifier checks.
    unsafe {
        let mut next = byte(data, 6);
        let mut at = 40usize;
        for _ in 0..6 {
            let header = data + at;
            if header + 8 > end || at > 512 {
                return None;
            }
            let len = match next {
                TCP => return Some(at),
                // Hop-by-hop, routing, destination options, mobility.
                0 | 43 | 60 | 135 => (byte(header, 1) as usize + 1) * 8,
                // Fragment: only the first one holds the TCP header, and it is reassembled here.
                44 => 8,
                // Authentication.
                51 => (byte(header, 1) as usize + 2) * 4,
                _ => return None,
            };
            next = byte(header, 0);
            at += len;
        }
        if next == TCP { Some(at) } else { None }
    }
}

/// # Safety
///
/// `base + at` lies inside the packet.
#[inline(always)]
unsafe fn byte(base: usize, at: usize) -> u8 {
    // SAFETY: by the contract.
    unsafe { *((base + at) as *const u8) }
}
