//! What people read: rows of `wsmon ls`, the JSON API and `wsmon trace`. Serialised names are a
//! contract. Times are RFC 3339 in UTC or seconds; sizes are bytes.

use serde::{Deserialize, Serialize, Serializer};

/// One open WebSocket, seen from this host's socket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConnectionView {
    /// Unique while the agent runs.
    pub id: String,
    /// `server` or `client`: which end this host's socket is.
    pub role: String,
    /// `handshaking`, `open`, `closing` or `unsynced`.
    pub state: String,
    /// Base name of the process's executable, or `unknown`.
    pub process: String,
    pub pid: Option<u32>,
    /// The server's TCP port.
    pub port: u16,
    /// This host's address and port.
    pub local: String,
    /// The peer's address and port.
    pub remote: String,
    pub handshake: HandshakeView,
    /// When the handshake ended (began, while it is under way).
    pub opened_at: String,
    pub age_seconds: f64,
    /// Seconds since payload passed in either direction.
    pub idle_seconds: f64,
    pub sent: DirectionView,
    pub received: DirectionView,
}

/// What the handshake said, redacted. Absent where the heads were not seen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HandshakeView {
    pub status: Option<u16>,
    pub duration_seconds: Option<f64>,
    /// Path of the request, its query removed. In a record it is the record's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    pub host: Option<String>,
    pub user_agent: Option<String>,
    pub origin: Option<String>,
    /// The subprotocol that the server selected.
    pub subprotocol: Option<String>,
    /// Extensions that the server selected, as written.
    pub extensions: Option<String>,
}

/// Counters of one direction.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DirectionView {
    pub frames: FramesView,
    pub text_messages: u64,
    pub binary_messages: u64,
    pub compressed_messages: u64,
    pub payload_bytes: u64,
    /// Bytes of the TCP stream behind the handshake.
    pub wire_bytes: u64,
    /// Bytes that passed while the frame boundary was not known.
    pub unsynced_bytes: u64,
    /// Names of `wsmon_protocol_errors_total`'s `kind`.
    pub protocol_errors: Vec<String>,
    /// Code of the first Close frame; 1005 for one without a code.
    pub close_code: Option<u16>,
}

/// Frames by opcode.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FramesView {
    pub continuation: u64,
    pub text: u64,
    pub binary: u64,
    pub close: u64,
    pub ping: u64,
    pub pong: u64,
    pub reserved: u64,
}

/// One line of `wsmon trace`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TraceRecord {
    /// RFC 3339 in UTC, with microseconds.
    pub time: String,
    /// [`ConnectionView::id`].
    pub connection: String,
    pub role: String,
    pub process: String,
    pub pid: Option<u32>,
    pub local: String,
    pub remote: String,
    pub port: u16,
    pub path: Option<String>,
    #[serde(flatten)]
    pub what: Traced,
}

impl TraceRecord {
    /// Says at `time` that lines are missing.
    pub fn dropped(time: String, lines: u64) -> Self {
        Self {
            time,
            connection: String::new(),
            role: String::new(),
            process: String::new(),
            pid: None,
            local: String::new(),
            remote: String::new(),
            port: 0,
            path: None,
            what: Traced::Dropped { lines },
        }
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Traced {
    /// A handshake was answered, or ended without an answer.
    Handshake {
        /// `result` of `wsmon_handshakes_total`.
        result: String,
        #[serde(flatten, serialize_with = "without_path")]
        handshake: HandshakeView,
    },
    Frame {
        /// `sent` or `received`.
        direction: String,
        opcode: String,
        fin: bool,
        /// RSV1, RSV2 and RSV3 as bits 2, 1 and 0.
        rsv: u8,
        masked: bool,
        /// Bytes of payload.
        length: u64,
        /// Of a pong that answers a ping: time between the two.
        #[serde(skip_serializing_if = "Option::is_none")]
        rtt_seconds: Option<f64>,
        /// Of a Close frame.
        #[serde(skip_serializing_if = "Option::is_none")]
        code: Option<u16>,
        /// Of a Close frame, if reasons are shown.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// The connection ended.
    Close {
        /// Code of the first Close frame; 1006 if there was none.
        code: u16,
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// `local`, `remote` or `unknown`.
        initiator: String,
        /// `cause` of `wsmon_connections_closed_total`.
        cause: String,
        severity: String,
        duration_seconds: f64,
        /// Written by the application and never sent.
        unsent_bytes: u64,
        sent: DirectionView,
        received: DirectionView,
    },
    /// Lines that were left out: over `--max-rate`, or lost between kernel and user space.
    Dropped { lines: u64 },
}

/// [`TraceRecord`] has the path itself, and a key that comes twice cannot be read back.
fn without_path<S: Serializer>(
    handshake: &HandshakeView,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let handshake = HandshakeView {
        path: None,
        ..handshake.clone()
    };
    handshake.serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_a_handshake_has_its_path_once_and_reads_back() {
        let record = TraceRecord {
            time: String::new(),
            connection: "1".into(),
            role: "server".into(),
            process: "node".into(),
            pid: None,
            local: String::new(),
            remote: String::new(),
            port: 80,
            path: Some("/chat".into()),
            what: Traced::Handshake {
                result: "accepted".into(),
                handshake: HandshakeView {
                    status: Some(101),
                    path: Some("/chat".into()),
                    ..HandshakeView::default()
                },
            },
        };
        let json = serde_json::to_string(&record).unwrap();
        assert_eq!(json.matches("\"path\"").count(), 1, "{json}");
        let read: TraceRecord = serde_json::from_str(&json).unwrap();
        assert_eq!(read.path.as_deref(), Some("/chat"));
    }
}
