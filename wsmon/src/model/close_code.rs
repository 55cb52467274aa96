//! Close codes as labels, bounded, and what they say about an end.

use std::collections::BTreeMap;
use std::fmt;

use wsmon_common::slot::CLOSE_NO_STATUS;

/// `severity` of `wsmon_connections_closed_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Expected,
    Investigate,
    High,
}

impl Severity {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expected => "expected",
            Self::Investigate => "investigate",
            Self::High => "high",
        }
    }
}

/// No Close frame: what RFC 6455, section 7.1.5 has the application see.
pub const CLOSE_ABNORMAL: u16 = 1006;

/// Codes that may stand in a Close frame: RFC 6455, section 7.4.1, and IANA's registry of them.
pub const REGISTERED: [u16; 16] = [
    1000,
    1001,
    1002,
    1003,
    1007,
    1008,
    1009,
    1010,
    1011,
    1012,
    1013,
    1014,
    3000,
    3003,
    3008,
    CLOSE_NO_STATUS,
];

/// `code` of `wsmon_connections_closed_total`, bounded whatever peers send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CodeLabel {
    /// A registered code, 1005, 1006 or one that the operator named.
    Known(u16),
    App3,
    App4,
    /// A code that must not stand in a Close frame.
    Invalid,
}

impl fmt::Display for CodeLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(code) => write!(f, "{code}"),
            Self::App3 => f.write_str("app_3xxx"),
            Self::App4 => f.write_str("app_4xxx"),
            Self::Invalid => f.write_str("invalid"),
        }
    }
}

/// What the operator said about codes.
#[derive(Clone, Debug, Default)]
pub struct CodePolicy {
    /// Codes that are labels of their own: the first [`CodePolicy::MAX_NAMED`] count.
    pub named: Vec<u16>,
    /// Severities of codes, in place of the built-in ones.
    pub severities: BTreeMap<u16, Severity>,
}

impl CodePolicy {
    pub const MAX_NAMED: usize = 16;

    pub fn named(&self) -> &[u16] {
        &self.named[..self.named.len().min(Self::MAX_NAMED)]
    }

    pub fn label(&self, code: u16) -> CodeLabel {
        if REGISTERED.contains(&code) || self.named().contains(&code) {
            return CodeLabel::Known(code);
        }
        match code {
            3000..=3999 => CodeLabel::App3,
            4000..=4999 => CodeLabel::App4,
            _ => CodeLabel::Invalid,
        }
    }

    pub fn severity(&self, code: u16) -> Severity {
        if let Some(severity) = self.severities.get(&code) {
            return *severity;
        }
        match code {
            1000 | 1001 | 1005 | 1012 => Severity::Expected,
            1011 | 1014 => Severity::High,
            _ => Severity::Investigate,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::lifecycle::known_ends;

    #[test]
    fn codes_are_bounded_whatever_a_peer_sends() {
        let policy = CodePolicy {
            named: (4000..4100).collect(),
            severities: BTreeMap::from([(4001, Severity::High)]),
        };
        let known: std::collections::BTreeSet<_> =
            known_ends(&policy).map(|end| end.code).collect();
        for code in 1..=u16::MAX {
            assert!(known.contains(&policy.label(code)), "{code}");
        }
        assert_eq!(policy.label(3003).to_string(), "3003");
        assert_eq!(policy.label(3999).to_string(), "app_3xxx");
        assert_eq!(policy.label(4015).to_string(), "4015");
        assert_eq!(policy.label(4016).to_string(), "app_4xxx");
        assert_eq!(policy.label(1006).to_string(), "invalid");
        assert_eq!(policy.severity(4001), Severity::High);
    }
}
