//! In which state is a connection, and how did it end?

use wsmon_common::slot::{CLOSE_NONE, SIDE_LOCAL, SIDE_REMOTE, STATE_OPEN, Slot, TCP_FIN, TCP_RST};

use super::close_code::{CLOSE_ABNORMAL, CodeLabel, CodePolicy, REGISTERED, Severity};

/// `state` of `wsmon_connections`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Handshaking,
    Open,
    /// A Close frame or a FIN passed, the connection has not ended.
    Closing,
    /// Open, and the frame boundary is not known in a direction.
    Unsynced,
}

impl State {
    pub const ALL: [Self; 4] = [Self::Handshaking, Self::Open, Self::Closing, Self::Unsynced];

    /// The state of a connection that is a WebSocket and has not ended.
    pub fn of(slot: &Slot) -> Self {
        let directions = [&slot.sent, &slot.received];
        if slot.state != STATE_OPEN {
            Self::Handshaking
        } else if directions
            .iter()
            .any(|one| one.close_code != CLOSE_NONE || one.tcp_flags != 0)
        {
            Self::Closing
        } else if directions.iter().any(|one| one.lost_at != 0) {
            Self::Unsynced
        } else {
            Self::Open
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Handshaking => "handshaking",
            Self::Open => "open",
            Self::Closing => "closing",
            Self::Unsynced => "unsynced",
        }
    }
}

/// `cause` of `wsmon_connections_closed_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    CloseFrame,
    Fin,
    Reset,
    Timeout,
    ProcessExit,
    Unknown,
}

impl Cause {
    pub const ALL: [Self; 6] = [
        Self::CloseFrame,
        Self::Fin,
        Self::Reset,
        Self::Timeout,
        Self::ProcessExit,
        Self::Unknown,
    ];

    /// The first that holds: a Close frame, whatever came after it; then why the socket went.
    fn of(slot: &Slot) -> Self {
        const ETIMEDOUT: u32 = 110;
        const ECONNRESET: u32 = 104;
        const EPIPE: u32 = 32;
        let flags = slot.sent.tcp_flags | slot.received.tcp_flags;
        if slot.sent.close_code != CLOSE_NONE || slot.received.close_code != CLOSE_NONE {
            Self::CloseFrame
        } else if slot.process_exit != 0 {
            Self::ProcessExit
        } else if slot.error == ETIMEDOUT {
            Self::Timeout
        } else if flags & TCP_RST != 0 || matches!(slot.error, ECONNRESET | EPIPE) {
            Self::Reset
        } else if flags & TCP_FIN != 0 {
            Self::Fin
        } else {
            Self::Unknown
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::CloseFrame => "close_frame",
            Self::Fin => "fin",
            Self::Reset => "reset",
            Self::Timeout => "timeout",
            Self::ProcessExit => "process_exit",
            Self::Unknown => "unknown",
        }
    }
}

/// `initiator` of `wsmon_connections_closed_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Initiator {
    Local,
    Remote,
    Unknown,
}

impl Initiator {
    pub const ALL: [Self; 3] = [Self::Local, Self::Remote, Self::Unknown];

    /// Who sent the first Close frame; without one, the first FIN or RST.
    fn of(slot: &Slot) -> Self {
        let first = |side| match side {
            SIDE_LOCAL => Some(Self::Local),
            SIDE_REMOTE => Some(Self::Remote),
            _ => None,
        };
        first(slot.first_close)
            .or_else(|| first(slot.first_end))
            .unwrap_or(Self::Unknown)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Remote => "remote",
            Self::Unknown => "unknown",
        }
    }
}

/// The labels of an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EndLabels {
    pub code: CodeLabel,
    pub cause: Cause,
    pub initiator: Initiator,
    pub severity: Severity,
}

/// How an open connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// Of the first Close frame; [`CLOSE_ABNORMAL`] if there was none.
    pub code: u16,
    pub labels: EndLabels,
    /// Nanoseconds from the answer to the handshake to the end.
    pub duration_ns: u64,
    /// Nanoseconds from the last payload (or the answer) to the end.
    pub idle_ns: u64,
}

impl End {
    /// Of a slot that was open and will not change any more.
    pub fn of(slot: &Slot, policy: &CodePolicy, now_ns: u64) -> Self {
        let end_ns = if slot.end_ns == 0 {
            now_ns
        } else {
            slot.end_ns
        };
        let active_ns = slot
            .response_ns
            .max(slot.sent.activity_ns)
            .max(slot.received.activity_ns);
        let cause = Cause::of(slot);
        let (code, label) = match close_code(slot) {
            Some(code) => (code, policy.label(code)),
            None => (CLOSE_ABNORMAL, CodeLabel::Known(CLOSE_ABNORMAL)),
        };
        Self {
            code,
            labels: EndLabels {
                code: label,
                cause,
                initiator: Initiator::of(slot),
                severity: policy.severity(code),
            },
            duration_ns: end_ns.saturating_sub(slot.response_ns),
            idle_ns: end_ns.saturating_sub(active_ns),
        }
    }
}

/// The code of the first Close frame.
fn close_code(slot: &Slot) -> Option<u16> {
    let (first, second) = if slot.first_close == SIDE_REMOTE {
        (&slot.received, &slot.sent)
    } else {
        (&slot.sent, &slot.received)
    };
    [first.close_code, second.close_code]
        .into_iter()
        .find(|&code| code != CLOSE_NONE)
}

/// Every combination that starts at 0, and every one that occurs.
pub fn known_ends(policy: &CodePolicy) -> impl Iterator<Item = EndLabels> {
    let severity_of = |label| match label {
        CodeLabel::Known(code) => policy.severity(code),
        _ => Severity::Investigate,
    };
    let with_frame = REGISTERED
        .iter()
        .chain(policy.named())
        .map(|&code| CodeLabel::Known(code))
        .chain([CodeLabel::App3, CodeLabel::App4, CodeLabel::Invalid])
        .map(|code| (code, Cause::CloseFrame));
    let without = Cause::ALL
        .into_iter()
        .filter(|&cause| cause != Cause::CloseFrame)
        .map(|cause| (CodeLabel::Known(CLOSE_ABNORMAL), cause));
    with_frame.chain(without).flat_map(move |(code, cause)| {
        Initiator::ALL.into_iter().map(move |initiator| EndLabels {
            code,
            cause,
            initiator,
            severity: severity_of(code),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> Slot {
        Slot {
            state: STATE_OPEN,
            request_ns: 90,
            response_ns: 100,
            end_ns: 1100,
            ..Slot::EMPTY
        }
    }

    fn end(slot: &Slot) -> End {
        End::of(slot, &CodePolicy::default(), 9999)
    }

    fn labels(slot: &Slot) -> (u16, &'static str, &'static str, &'static str) {
        let end = end(slot);
        (
            end.code,
            end.labels.cause.as_str(),
            end.labels.initiator.as_str(),
            end.labels.severity.as_str(),
        )
    }

    #[test]
    fn the_first_close_frame_gives_code_and_initiator() {
        let mut slot = open();
        (slot.sent.close_code, slot.received.close_code) = (1000, 1001);
        (slot.first_close, slot.first_end) = (SIDE_REMOTE, SIDE_LOCAL);
        slot.sent.tcp_flags = TCP_RST;
        assert_eq!(labels(&slot), (1001, "close_frame", "remote", "expected"));
        slot.first_close = SIDE_LOCAL;
        assert_eq!(labels(&slot).0, 1000);
    }

    #[test]
    fn a_code_on_the_other_side_alone_counts_too() {
        let mut slot = open();
        slot.received.close_code = 1011;
        slot.first_close = SIDE_LOCAL;
        assert_eq!(labels(&slot), (1011, "close_frame", "local", "high"));
    }

    #[test]
    fn without_a_close_frame_the_code_is_1006_and_the_socket_says_why() {
        let mut slot = open();
        assert_eq!(labels(&slot), (1006, "unknown", "unknown", "investigate"));
        slot.received.tcp_flags = TCP_FIN;
        slot.first_end = SIDE_REMOTE;
        assert_eq!(labels(&slot), (1006, "fin", "remote", "investigate"));
        slot.received.tcp_flags |= TCP_RST;
        assert_eq!(labels(&slot).1, "reset");
        slot.error = 110;
        assert_eq!(labels(&slot).1, "timeout");
        slot.process_exit = 1;
        assert_eq!(labels(&slot).1, "process_exit");
        let mut broken_pipe = open();
        broken_pipe.error = 32;
        assert_eq!(labels(&broken_pipe).1, "reset");
    }

    #[test]
    fn duration_runs_from_the_answer_and_idle_from_the_last_payload() {
        let mut slot = open();
        assert_eq!((end(&slot).duration_ns, end(&slot).idle_ns), (1000, 1000));
        slot.sent.activity_ns = 400;
        slot.received.activity_ns = 700;
        assert_eq!((end(&slot).duration_ns, end(&slot).idle_ns), (1000, 400));
    }

    #[test]
    fn a_connection_is_closing_once_a_close_frame_or_a_fin_passed() {
        let mut slot = open();
        assert_eq!(State::of(&slot), State::Open);
        slot.sent.lost_at = 5;
        assert_eq!(State::of(&slot), State::Unsynced);
        slot.received.close_code = 1000;
        assert_eq!(State::of(&slot), State::Closing);
        slot.state = wsmon_common::slot::STATE_HANDSHAKE;
        assert_eq!(State::of(&slot), State::Handshaking);
    }
}
