//! What came of a handshake, and how long did the answer take?

use wsmon_common::slot::{STATE_HANDSHAKE, STATE_OPEN, STATE_REFUSED, Slot};

use crate::decode::http::{Key, Request, Response};

use super::clock::{SECOND_NS, seconds};
use super::view::HandshakeView;

/// How long the heads of an answered handshake are waited for: the ring runs beside the slots.
const HEADS_PATIENCE_NS: u64 = SECOND_NS / 2;

/// `result` of `wsmon_handshakes_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HandshakeResult {
    Accepted,
    Rejected,
    /// Answered as plain HTTP: a final 2xx.
    Ignored,
    /// Ended before an answer.
    Aborted,
    Timeout,
    /// 101 to something else than WebSocket, with a wrong accept key, or to a request whose key is malformed or missing.
    Invalid,
}

impl HandshakeResult {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Rejected => "rejected",
            Self::Ignored => "ignored",
            Self::Aborted => "aborted",
            Self::Timeout => "timeout",
            Self::Invalid => "invalid",
        }
    }
}

/// `status` of `wsmon_handshakes_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StatusLabel {
    Known(u16),
    /// No answer.
    None,
    Other,
}

impl std::fmt::Display for StatusLabel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Known(status) => write!(f, "{status}"),
            Self::None => f.write_str("none"),
            Self::Other => f.write_str("other"),
        }
    }
}

impl StatusLabel {
    fn of(result: HandshakeResult, status: u16) -> Self {
        if matches!(result, HandshakeResult::Aborted | HandshakeResult::Timeout) {
            return Self::None;
        }
        match status {
            101
            | 200..=208
            | 226
            | 300..=305
            | 307
            | 308
            | 400..=417
            | 421..=426
            | 428
            | 429
            | 431
            | 451
            | 500..=508
            | 510
            | 511 => Self::Known(status),
            _ => Self::Other,
        }
    }
}

/// The combinations that start at 0: what servers and proxies answer an upgrade with. Other known
/// statuses appear when they occur.
pub const USUAL_OUTCOMES: [(HandshakeResult, StatusLabel); 18] = {
    use HandshakeResult::{Aborted, Accepted, Ignored, Invalid, Rejected, Timeout};
    use StatusLabel::{Known, None, Other};
    [
        (Accepted, Known(101)),
        (Rejected, Known(301)),
        (Rejected, Known(302)),
        (Rejected, Known(400)),
        (Rejected, Known(401)),
        (Rejected, Known(403)),
        (Rejected, Known(404)),
        (Rejected, Known(426)),
        (Rejected, Known(429)),
        (Rejected, Known(500)),
        (Rejected, Known(502)),
        (Rejected, Known(503)),
        (Rejected, Other),
        (Ignored, Known(200)),
        (Ignored, Other),
        (Aborted, None),
        (Timeout, None),
        (Invalid, Known(101)),
    ]
};

/// A handshake as far as it is known.
#[derive(Debug, Default)]
pub struct Handshake {
    pub request: Option<Request>,
    /// Only a final one.
    pub response: Option<Response>,
    pub outcome: Option<Outcome>,
}

/// What a handshake came to; it does not change any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub result: HandshakeResult,
    pub status: StatusLabel,
    /// From the request's first byte to the status line of the answer; none without an answer.
    pub duration_ns: Option<u64>,
    /// Whether the server selected permessage-deflate; true where its head was not seen.
    pub deflate: bool,
}

impl Handshake {
    /// Decides the outcome when enough is known. `timeout_ns` is how long an answer may take.
    pub fn decide(&mut self, slot: &Slot, timeout_ns: u64, now_ns: u64) {
        if self.outcome.is_some() {
            return;
        }
        let waited = now_ns.saturating_sub(slot.response_ns) >= HEADS_PATIENCE_NS;
        let result = match slot.state {
            STATE_OPEN => {
                let both = self.request.is_some() && self.response.is_some();
                if !both && !waited {
                    return;
                }
                self.judge_acceptance()
            }
            STATE_REFUSED if self.request.is_none() && !waited => return,
            STATE_REFUSED if (200..300).contains(&slot.status) => HandshakeResult::Ignored,
            // 101, but not to WebSocket.
            STATE_REFUSED if slot.status == 101 => HandshakeResult::Invalid,
            STATE_REFUSED if slot.status != 0 => HandshakeResult::Rejected,
            // The answer was no HTTP/1.1.
            STATE_REFUSED => HandshakeResult::Invalid,
            STATE_HANDSHAKE if slot.end_ns != 0 => HandshakeResult::Aborted,
            STATE_HANDSHAKE if has_timed_out(slot, timeout_ns, now_ns) => HandshakeResult::Timeout,
            _ => return,
        };
        let status = if slot.state == STATE_OPEN {
            101
        } else {
            slot.status
        };
        self.outcome = Some(Outcome {
            result,
            status: StatusLabel::of(result, status),
            duration_ns: (slot.response_ns != 0)
                .then(|| slot.response_ns.saturating_sub(slot.request_ns)),
            deflate: self
                .response
                .as_ref()
                .is_none_or(|response| response.deflate || response.cut),
        });
    }

    /// RFC 6455, sections 4.1 and 4.2.2. What was not seen is not held against anybody.
    fn judge_acceptance(&self) -> HandshakeResult {
        let Some(request) = &self.request else {
            return HandshakeResult::Accepted;
        };
        match (&request.key, &self.response) {
            (Key::Missing | Key::Malformed, _) => HandshakeResult::Invalid,
            (Key::Accept(expected), Some(response)) => match &response.accept {
                Some(accept) if accept == expected => HandshakeResult::Accepted,
                None if response.cut => HandshakeResult::Accepted,
                _ => HandshakeResult::Invalid,
            },
            _ => HandshakeResult::Accepted,
        }
    }

    /// What people read of it.
    pub fn view(&self, slot: &Slot) -> HandshakeView {
        let status = match slot.status {
            0 if slot.state == STATE_OPEN => Some(101),
            0 => None,
            status => Some(status),
        };
        let request = self.request.as_ref();
        let response = self.response.as_ref();
        HandshakeView {
            status,
            duration_seconds: (slot.response_ns != 0)
                .then(|| seconds(slot.response_ns.saturating_sub(slot.request_ns))),
            path: request.and_then(|request| request.path.clone()),
            host: request.and_then(|request| request.host.clone()),
            user_agent: request.and_then(|request| request.user_agent.clone()),
            origin: request.and_then(|request| request.origin.clone()),
            subprotocol: response.and_then(|response| response.subprotocol.clone()),
            extensions: response.and_then(|response| response.extensions.clone()),
        }
    }
}

/// Whether an answer is overdue.
pub fn has_timed_out(slot: &Slot, timeout_ns: u64, now_ns: u64) -> bool {
    slot.end_ns == 0 && slot.request_ns != 0 && now_ns.saturating_sub(slot.request_ns) >= timeout_ns
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    const TIMEOUT: u64 = 60 * SECOND_NS;

    fn handshake(request: &[u8], response: &[u8]) -> Handshake {
        Handshake {
            request: Some(Request::parse(request, true)),
            response: Some(Response::parse(response, true)),
            outcome: None,
        }
    }

    fn slot(state: u8, status: u16) -> Slot {
        Slot {
            state,
            status,
            request_ns: 1000,
            response_ns: if status == 0 { 0 } else { 3000 },
            ..Slot::EMPTY
        }
    }

    fn decided(mut handshake: Handshake, slot: &Slot, now: u64) -> Option<(&'static str, String)> {
        handshake.decide(slot, TIMEOUT, now);
        handshake
            .outcome
            .map(|outcome| (outcome.result.as_str(), outcome.status.to_string()))
    }

    #[test]
    fn an_answer_with_the_right_accept_key_is_accepted() {
        let mut good = handshake(
            REQUEST,
            b"HTTP/1.1 101 S\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
        );
        good.decide(&slot(STATE_OPEN, 101), TIMEOUT, 4000);
        let outcome = good.outcome.unwrap();
        assert_eq!(outcome.result, HandshakeResult::Accepted);
        assert_eq!((outcome.duration_ns, outcome.deflate), (Some(2000), false));
    }

    #[test]
    fn a_wrong_or_missing_key_on_either_side_is_invalid() {
        let open = slot(STATE_OPEN, 101);
        for (request, response) in [
            (
                REQUEST,
                &b"HTTP/1.1 101 S\r\nSec-WebSocket-Accept: bad\r\n\r\n"[..],
            ),
            (REQUEST, b"HTTP/1.1 101 S\r\n\r\n"),
            (b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 101 S\r\n\r\n"),
        ] {
            let handshake = handshake(request, response);
            assert_eq!(
                decided(handshake, &open, 4000),
                Some(("invalid", "101".to_owned()))
            );
        }
    }

    #[test]
    fn heads_that_never_come_do_not_hold_up_the_count() {
        let open = slot(STATE_OPEN, 101);
        assert_eq!(decided(Handshake::default(), &open, 4000), None);
        let later = 3000 + HEADS_PATIENCE_NS;
        assert_eq!(
            decided(Handshake::default(), &open, later),
            Some(("accepted", "101".to_owned()))
        );
    }

    #[test]
    fn refusals_keep_their_status_if_it_is_a_known_one() {
        for (status, expected) in [
            (403, Some(("rejected", "403".to_owned()))),
            (302, Some(("rejected", "302".to_owned()))),
            (799, Some(("rejected", "other".to_owned()))),
            (200, Some(("ignored", "200".to_owned()))),
        ] {
            let refused = slot(STATE_REFUSED, status);
            let handshake = || Handshake {
                request: Some(Request::parse(REQUEST, true)),
                ..Handshake::default()
            };
            assert_eq!(decided(handshake(), &refused, 4000), expected);
            // Its head may still be on the way.
            assert_eq!(decided(Handshake::default(), &refused, 4000), None);
        }
    }

    #[test]
    fn no_answer_is_aborted_or_a_timeout() {
        let mut waiting = slot(STATE_HANDSHAKE, 0);
        assert_eq!(decided(Handshake::default(), &waiting, TIMEOUT), None);
        assert_eq!(
            decided(Handshake::default(), &waiting, TIMEOUT + 1000),
            Some(("timeout", "none".to_owned()))
        );
        waiting.end_ns = 5000;
        assert_eq!(
            decided(Handshake::default(), &waiting, TIMEOUT + 1000),
            Some(("aborted", "none".to_owned()))
        );
    }
}
