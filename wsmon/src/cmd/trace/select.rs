//! `--only` and `--code`: which of the things that happen are shown.

use clap::{Args, ValueEnum};
use wsmon::model::{
    filter::{self, Filter, Kinds},
    view::Traced,
};

#[derive(Clone, Debug, Default, Args)]
pub struct Selection {
    /// Only these kinds, separated by commas.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "KIND")]
    only: Vec<Kind>,

    /// Only Close frames and ends with this code: 1006 is an end without a Close frame.
    #[arg(long, value_name = "CODE")]
    code: Option<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum Kind {
    /// A handshake was answered, or ended without an answer.
    Handshake,
    /// A frame of any opcode.
    Frame,
    Continuation,
    Text,
    Binary,
    /// A Close frame.
    Close,
    Ping,
    Pong,
    /// The connection ended.
    End,
}

impl Selection {
    pub fn wants(&self, what: &Traced) -> bool {
        let kind = self.only.is_empty() || self.only.iter().any(|kind| kind.is(what));
        kind && self.code.is_none_or(|code| code_of(what) == Some(code))
    }
}

impl Selection {
    /// Narrows what the source sends to about that, so that nothing leaves the kernel for nothing.
    pub fn narrow(&self, filter: &mut Filter) {
        filter.code = self.code;
        filter.only = Kinds(self.only.iter().map(|kind| kind.source_kind()).collect());
    }
}

impl Kind {
    /// The kind that has it, as the agent tells kinds apart.
    fn source_kind(self) -> filter::Kind {
        match self {
            Self::Handshake => filter::Kind::Handshake,
            Self::Frame => filter::Kind::Frame,
            Self::Continuation | Self::Text | Self::Binary => filter::Kind::Data,
            Self::Close => filter::Kind::Control,
            Self::Ping | Self::Pong => filter::Kind::Ping,
            Self::End => filter::Kind::Close,
        }
    }

    fn is(self, what: &Traced) -> bool {
        match (self, what) {
            (Self::Handshake, Traced::Handshake { .. })
            | (Self::Frame, Traced::Frame { .. })
            | (Self::End, Traced::Close { .. }) => true,
            (_, Traced::Frame { opcode, .. }) => self
                .to_possible_value()
                .is_some_and(|value| value.get_name() == opcode),
            _ => false,
        }
    }
}

fn code_of(what: &Traced) -> Option<u16> {
    match what {
        Traced::Frame { code, .. } => *code,
        Traced::Close { code, .. } => Some(*code),
        Traced::Handshake { .. } | Traced::Dropped { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cmd::example::{self, end, frame};

    fn only(kinds: &[Kind]) -> Selection {
        Selection {
            only: kinds.to_vec(),
            code: None,
        }
    }

    #[test]
    fn close_is_the_frame_and_end_is_the_connections() {
        let close = frame("sent", "close", 2);
        assert!(only(&[Kind::Close]).wants(&close));
        assert!(!only(&[Kind::Close]).wants(&end(1000)));
        assert!(only(&[Kind::End]).wants(&end(1000)));
        assert!(!only(&[Kind::End]).wants(&close));
    }

    #[test]
    fn what_is_wanted_is_among_what_the_source_sends() {
        for &kind in Kind::value_variants() {
            let mut filter = Filter::default();
            only(&[kind]).narrow(&mut filter);
            let name = kind.to_possible_value().unwrap();
            let what = match kind {
                Kind::Handshake => Traced::Handshake {
                    result: "accepted".into(),
                    handshake: example::connection("1").handshake,
                },
                Kind::End => end(1000),
                Kind::Frame => frame("sent", "text", 1),
                _ => frame("sent", name.get_name(), 1),
            };
            assert!(only(&[kind]).wants(&what), "{kind:?}");
            assert!(filter.matches_record(&example::record(what)), "{kind:?}");
        }
    }

    #[test]
    fn frame_is_any_opcode_and_several_kinds_add_up() {
        assert!(only(&[Kind::Frame]).wants(&frame("sent", "reserved", 2)));
        let heartbeats = only(&[Kind::Ping, Kind::Pong]);
        assert!(heartbeats.wants(&frame("sent", "pong", 2)));
        assert!(!heartbeats.wants(&frame("sent", "text", 2)));
    }

    #[test]
    fn a_code_leaves_only_what_has_it() {
        let broken = Selection {
            only: Vec::new(),
            code: Some(1006),
        };
        assert!(broken.wants(&end(1006)));
        assert!(!broken.wants(&end(1000)));
        assert!(!broken.wants(&frame("sent", "text", 2)));
    }
}
