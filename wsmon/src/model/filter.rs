//! Which connections and records are wanted: shared by the command line, the API and the engine.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::view::{ConnectionView, TraceRecord, Traced};

/// Everything that is set must hold. As a query string: `pid=1&port=80&remote=10.0.0.0/8&path=/chat*&role=server&only=frame,close&code=1006`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// The server's TCP port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<Remote>,
    /// The request's path; `*` stands for any characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<RoleFilter>,
    /// Of records: only these kinds, separated by commas.
    #[serde(default, skip_serializing_if = "Kinds::is_any")]
    pub only: Kinds,
    /// Of closes and Close frames: only with this code. Other records have none and do not match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
}

impl Filter {
    /// Whether a row of `wsmon ls` is wanted. Kinds and codes are about records.
    pub fn matches_connection(&self, view: &ConnectionView) -> bool {
        self.matches_place(
            view.pid,
            view.port,
            &view.remote,
            view.handshake.path.as_deref(),
            &view.role,
        )
    }

    /// Whether a line of `wsmon trace` is wanted. That lines were dropped always is.
    pub fn matches_record(&self, record: &TraceRecord) -> bool {
        if matches!(record.what, Traced::Dropped { .. }) {
            return true;
        }
        let code = match &record.what {
            Traced::Frame { code, .. } => *code,
            Traced::Close { code, .. } => Some(*code),
            _ => None,
        };
        (self.code.is_none() || self.code == code)
            && self.only.contains(&record.what)
            && self.matches_place(
                record.pid,
                record.port,
                &record.remote,
                record.path.as_deref(),
                &record.role,
            )
    }

    fn matches_place(
        &self,
        pid: Option<u32>,
        port: u16,
        remote: &str,
        path: Option<&str>,
        role: &str,
    ) -> bool {
        self.pid.is_none_or(|wanted| pid == Some(wanted))
            && self.port.is_none_or(|wanted| port == wanted)
            && self
                .remote
                .is_none_or(|wanted| remote.parse().is_ok_and(|remote| wanted.contains(remote)))
            && self
                .path
                .as_deref()
                .is_none_or(|wanted| path.is_some_and(|path| matches_pattern(wanted, path)))
            && self.role.is_none_or(|wanted| wanted.as_str() == role)
    }
}

/// Whether `text` is `pattern`, in which `*` stands for any characters.
fn matches_pattern(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut text) = text.strip_prefix(start) else {
        return false;
    };
    let mut parts = rest.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return text.ends_with(part);
        }
        let Some(at) = text.find(part) else {
            return false;
        };
        text = &text[at + part.len()..];
    }
    true
}

/// Which end this host's socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RoleFilter {
    Server,
    Client,
}

impl RoleFilter {
    fn as_str(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Client => "client",
        }
    }
}

impl FromStr for RoleFilter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        match text {
            "server" => Ok(Self::Server),
            "client" => Ok(Self::Client),
            _ => Err(FilterError::Role(text.to_owned())),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    #[error("`{0}` is no role: server or client")]
    Role(String),
    #[error("`{0}` is no address, address:port or network (10.0.0.0/8)")]
    Remote(String),
    #[error("`{0}` is no kind of record: {all}", all = Kind::NAMES.join(", "))]
    Kind(String),
}

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

/// A kind of record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Handshake,
    /// Any frame.
    Frame,
    /// Frames of type text, binary and continuation.
    Data,
    /// Frames of type close, ping and pong.
    Control,
    /// Pings and pongs.
    Ping,
    /// The end of a connection.
    Close,
}

impl Kind {
    const ALL: [Self; 6] = [
        Self::Handshake,
        Self::Frame,
        Self::Data,
        Self::Control,
        Self::Ping,
        Self::Close,
    ];
    pub const NAMES: [&str; 6] = ["handshake", "frame", "data", "control", "ping", "close"];

    fn as_str(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    fn contains(self, what: &Traced) -> bool {
        match (self, what) {
            (Self::Handshake, Traced::Handshake { .. })
            | (Self::Frame, Traced::Frame { .. })
            | (Self::Close, Traced::Close { .. }) => true,
            (Self::Data, Traced::Frame { opcode, .. }) => {
                matches!(opcode.as_str(), "text" | "binary" | "continuation")
            }
            (Self::Control, Traced::Frame { opcode, .. }) => {
                matches!(opcode.as_str(), "close" | "ping" | "pong")
            }
            (Self::Ping, Traced::Frame { opcode, .. }) => {
                matches!(opcode.as_str(), "ping" | "pong")
            }
            _ => false,
        }
    }
}

impl FromStr for Kind {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        // Plurals are what fingers type.
        let singular = text.strip_suffix('s').unwrap_or(text);
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == singular)
            .ok_or_else(|| FilterError::Kind(text.to_owned()))
    }
}

/// Kinds of records; none means any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kinds(pub Vec<Kind>);

impl Kinds {
    pub fn is_any(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether frames are among them: without, the kernel need not send any.
    pub fn want_frames(&self) -> bool {
        self.is_any()
            || self
                .0
                .iter()
                .any(|kind| !matches!(kind, Kind::Handshake | Kind::Close))
    }

    fn contains(&self, what: &Traced) -> bool {
        self.is_any() || self.0.iter().any(|kind| kind.contains(what))
    }
}

impl FromStr for Kinds {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        text.split(',')
            .filter(|part| !part.is_empty())
            .map(|part| part.trim().parse())
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl fmt::Display for Kinds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.0.iter().map(|kind| kind.as_str()).collect();
        f.write_str(&names.join(","))
    }
}

impl Serialize for Kinds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Kinds {
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
    fn a_pattern_matches_the_whole_path() {
        for (pattern, text, expected) in [
            ("/chat", "/chat", true),
            ("/chat", "/chat/1", false),
            ("/chat*", "/chat/1", true),
            ("*", "", true),
            ("/a/*/c", "/a/b/c", true),
            ("/a/*/c", "/a/b/d", false),
            ("*a*b*", "xaxbx", true),
            ("*a*b", "xbxa", false),
        ] {
            assert_eq!(matches_pattern(pattern, text), expected, "{pattern} {text}");
        }
    }

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

    #[test]
    fn kinds_are_read_in_any_number() {
        let kinds: Kinds = "handshakes,ping".parse().unwrap();
        assert_eq!(kinds.0, [Kind::Handshake, Kind::Ping]);
        assert_eq!(kinds.to_string(), "handshake,ping");
        assert!(kinds.want_frames());
        assert!(!"close".parse::<Kinds>().unwrap().want_frames());
        assert!("lunch".parse::<Kinds>().is_err());
    }

    #[test]
    fn a_filter_survives_the_way_through_json() {
        let filter = Filter {
            pid: Some(7),
            remote: Some("10.0.0.0/8".parse().unwrap()),
            only: "close".parse().unwrap(),
            ..Filter::default()
        };
        let json = serde_json::to_string(&filter).unwrap();
        assert_eq!(json, r#"{"pid":7,"remote":"10.0.0.0/8","only":"close"}"#);
        assert_eq!(serde_json::from_str::<Filter>(&json).unwrap(), filter);
    }
}
