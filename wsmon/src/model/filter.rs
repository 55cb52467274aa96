//! Which connections and records are wanted: shared by the command line, the API and the engine.

mod kind;
mod remote;

use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use self::kind::{Kind, Kinds};
pub use self::remote::Remote;
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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

    proptest! {
        #[test]
        fn any_filter_text_is_survived(text in ".{0,40}", pattern in "[ab*]{0,8}", path in "[ab]{0,8}") {
            let _ = text.parse::<Remote>();
            let _ = text.parse::<Kinds>();
            let expected = simple_match(pattern.as_bytes(), path.as_bytes());
            prop_assert_eq!(matches_pattern(&pattern, &path), expected);
        }
    }

    /// The textbook's definition.
    fn simple_match(pattern: &[u8], text: &[u8]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some((b'*', rest)) => (0..=text.len()).any(|at| simple_match(rest, &text[at..])),
            Some((byte, rest)) => text.first() == Some(byte) && simple_match(rest, &text[1..]),
        }
    }
}
