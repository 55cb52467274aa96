//! What did a peer do that RFC 6455 forbids?

use wsmon_common::slot::SlotDirection;

/// `kind` of `wsmon_protocol_errors_total`, by the bit of [`wsmon_common::stream::Violation`].
pub const KINDS: [&str; 13] = [
    "reserved_opcode",
    "reserved_bits",
    "masking",
    "control_too_long",
    "control_fragmented",
    "unexpected_continuation",
    "interleaved_message",
    "overlong_length",
    "length_top_bit",
    "close_too_short",
    "close_code",
    "misplaced_rsv1",
    "after_close",
];

const RESERVED_BITS: u16 = 1 << wsmon_common::stream::Violation::ReservedBits as u16;

/// The violations of a direction, a bit each. RSV1 without permessage-deflate is one too, which
/// the kernel cannot know.
pub fn violations(direction: &SlotDirection, deflate: bool) -> u16 {
    let unexpected_rsv1 = !deflate && direction.rsv1_messages != 0;
    direction.violations | if unexpected_rsv1 { RESERVED_BITS } else { 0 }
}

/// The names of a set of violations.
pub fn names(violations: u16) -> impl Iterator<Item = &'static str> {
    KINDS
        .into_iter()
        .enumerate()
        .filter_map(move |(bit, kind)| (violations & (1 << bit) != 0).then_some(kind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use wsmon_common::slot::Slot;
    use wsmon_common::stream::Violation;

    #[test]
    fn each_violation_has_its_name() {
        let mut direction = Slot::EMPTY.sent;
        direction.violations =
            1 << Violation::ReservedOpcode as u16 | 1 << Violation::AfterClose as u16;
        let found: Vec<_> = names(violations(&direction, false)).collect();
        assert_eq!(found, ["reserved_opcode", "after_close"]);
        assert_eq!(KINDS[Violation::CloseCode as usize], "close_code");
    }

    #[test]
    fn rsv1_is_an_error_only_without_permessage_deflate() {
        let mut direction = Slot::EMPTY.sent;
        direction.rsv1_messages = 3;
        assert_eq!(violations(&direction, true), 0);
        assert_eq!(
            names(violations(&direction, false)).next(),
            Some("reserved_bits")
        );
    }
}
