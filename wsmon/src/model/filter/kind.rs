//! Which kinds of records are wanted.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::FilterError;
use crate::model::view::Traced;

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

    pub fn contains(&self, what: &Traced) -> bool {
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
    fn kinds_are_read_in_any_number() {
        let kinds: Kinds = "handshakes,ping".parse().unwrap();
        assert_eq!(kinds.0, [Kind::Handshake, Kind::Ping]);
        assert_eq!(kinds.to_string(), "handshake,ping");
        assert!(kinds.want_frames());
        assert!(!"close".parse::<Kinds>().unwrap().want_frames());
        assert!("lunch".parse::<Kinds>().is_err());
    }
}
