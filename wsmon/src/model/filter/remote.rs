//! Which peers are wanted.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::FilterError;

/// A peer: an address, an address with a port, or a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remote {
    address: IpAddr,
    prefix: u8,
    port: Option<u16>,
}

impl Remote {
    pub fn contains(self, remote: SocketAddr) -> bool {
        if self.port.is_some_and(|port| port != remote.port()) {
            return false;
        }
        match (self.address, remote.ip().to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let shift = 32 - u32::from(self.prefix.min(32));
                let differ = own.to_bits() ^ other.to_bits();
                differ.checked_shr(shift).unwrap_or(0) == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let shift = 128 - u32::from(self.prefix.min(128));
                let differ = own.to_bits() ^ other.to_bits();
                differ.checked_shr(shift).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

impl FromStr for Remote {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        let error = || FilterError::Remote(text.to_owned());
        if let Ok(socket) = text.parse::<SocketAddr>() {
            return Ok(Self::new(socket.ip(), None, Some(socket.port())));
        }
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix.parse::<u8>().map_err(|_| error())?)),
            None => (text, None),
        };
        let bare = address.trim_start_matches('[').trim_end_matches(']');
        let address: IpAddr = bare.parse().map_err(|_| error())?;
        let widest = if address.is_ipv4() { 32 } else { 128 };
        if prefix.is_some_and(|prefix| prefix > widest) {
            return Err(error());
        }
        Ok(Self::new(address, prefix, None))
    }
}

impl Remote {
    fn new(address: IpAddr, prefix: Option<u8>, port: Option<u16>) -> Self {
        let canonical = address.to_canonical();
        let prefix = match prefix {
            // ::ffff:10.0.0.0/104 is 10.0.0.0/8.
            Some(prefix) if address.is_ipv6() && canonical.is_ipv4() => prefix.saturating_sub(96),
            Some(prefix) => prefix,
            None if canonical.is_ipv4() => 32,
            None => 128,
        };
        Self {
            address: canonical,
            prefix,
            port,
        }
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}", SocketAddr::new(self.address, port)),
            None => write!(f, "{}/{}", self.address, self.prefix),
        }
    }
}

impl Serialize for Remote {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Remote {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remote_is_an_address_a_socket_or_a_network() {
        let contains = |filter: &str, remote: &str| {
            filter
                .parse::<Remote>()
                .unwrap()
                .contains(remote.parse().unwrap())
        };
        assert!(contains("10.0.0.0/8", "10.1.2.3:5"));
        assert!(!contains("10.0.0.0/8", "11.1.2.3:5"));
        assert!(contains("0.0.0.0/0", "11.1.2.3:5"));
        assert!(contains("127.0.0.1", "127.0.0.1:5"));
        assert!(!contains("127.0.0.1:6", "127.0.0.1:5"));
        assert!(contains("[::1]:5", "[::1]:5"));
        assert!(contains("fe80::/10", "[fe80::1]:5"));
        assert!(contains("::/0", "[fe80::1]:5"));
        assert!(contains("::ffff:10.0.0.0/104", "10.9.9.9:1"));
        for bad in ["", "10.0.0.0/33", "example.org", "10.0.0.0/x"] {
            assert!(bad.parse::<Remote>().is_err(), "{bad}");
        }
    }
}
