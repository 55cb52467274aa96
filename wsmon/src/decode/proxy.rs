//! The PROXY protocol's prefix, versions 1 and 2 (haproxy, proxy-protocol.txt): what stands
//! before the request where a proxy tells whom it speaks for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const V1: &[u8] = b"PROXY ";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Splits a head into the client that a prefix names and what follows it. A prefix that does not
/// end within the head leaves nothing.
pub fn split(head: &[u8]) -> (Option<SocketAddr>, &[u8]) {
    if let Some(rest) = head.strip_prefix(V1) {
        let Some(end) = rest.iter().position(|&byte| byte == b'\n') else {
            return (None, &[]);
        };
        (v1_client(&rest[..end]), &rest[end + 1..])
    } else if let Some(rest) = head.strip_prefix(V2) {
        let Some((&[command, family, high, low], rest)) = rest.split_first_chunk::<4>() else {
            return (None, &[]);
        };
        let len = usize::from(u16::from_be_bytes([high, low]));
        let Some((addresses, rest)) = rest.split_at_checked(len) else {
            return (None, &[]);
        };
        // The command LOCAL (0x20) is the proxy's own, and names nobody.
        let client = (command == 0x21)
            .then(|| v2_client(family, addresses))
            .flatten();
        (client, rest)
    } else {
        (None, head)
    }
}

/// `TCP4 192.0.2.1 192.0.2.2 56324 443`
fn v1_client(line: &[u8]) -> Option<SocketAddr> {
    let line = str::from_utf8(line).ok()?;
    let mut words = line.split_ascii_whitespace();
    if !matches!(words.next()?, "TCP4" | "TCP6") {
        return None;
    }
    let address: IpAddr = words.next()?.parse().ok()?;
    let port = words.nth(1)?.parse().ok()?;
    Some(SocketAddr::new(address, port))
}

fn v2_client(family: u8, addresses: &[u8]) -> Option<SocketAddr> {
    let (address, port): (IpAddr, &[u8]) = match family >> 4 {
        1 => (
            Ipv4Addr::from(*addresses.first_chunk::<4>()?).into(),
            addresses.get(8..)?,
        ),
        2 => (
            Ipv6Addr::from(*addresses.first_chunk::<16>()?).into(),
            addresses.get(32..)?,
        ),
        _ => return None,
    };
    let port = u16::from_be_bytes(*port.first_chunk()?);
    Some(SocketAddr::new(address, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_1_names_the_client() {
        let (client, rest) = split(b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\nGET /");
        assert_eq!(client.unwrap().to_string(), "192.0.2.1:56324");
        assert_eq!(rest, b"GET /");
        assert_eq!(split(b"PROXY UNKNOWN\r\nGET /"), (None, &b"GET /"[..]));
    }

    #[test]
    fn version_2_names_the_client() {
        let mut head = V2.to_vec();
        head.extend([
            0x21, 0x11, 0, 12, 192, 0, 2, 1, 192, 0, 2, 2, 0x10, 0, 1, 0xbb,
        ]);
        head.extend(b"GET /");
        let (client, rest) = split(&head);
        assert_eq!(client.unwrap().to_string(), "192.0.2.1:4096");
        assert_eq!(rest, b"GET /");
        for len in 0..head.len() {
            split(&head[..len]);
        }
    }

    #[test]
    fn without_a_prefix_the_head_is_whole() {
        assert_eq!(split(b"GET / HTTP/1.1"), (None, &b"GET / HTTP/1.1"[..]));
    }
}
