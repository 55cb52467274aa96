//! Whether a frame boundary that was guessed is one.

use super::count::{close_code, is_sendable};
use super::{Direction, FOUND, FRAGMENT_UNKNOWN, FRAGMENT_UNSURE, Loss};
use crate::frame::{
    FIN, Header, MAX_CONTROL_PAYLOAD, OPCODE_CLOSE, OPCODE_CONTINUATION, RSV, RSV1,
};
use crate::slot::{CLOSE_NO_STATUS, CLOSE_NONE, SlotDirection, frame_class};

/// Headers with FIN that must stand in a row before a boundary that was guessed is believed; the
/// last of them begins a chunk.
pub(super) const PROOF: u8 = 4;
/// The longest payload that is believed behind a boundary that was guessed.
const PROOF_MAX_PAYLOAD: u64 = 1 << 24;

impl Direction {
    /// Whether a header can stand where a boundary was guessed; the window holds it at `at`.
    ///
    /// The boundary is believed, and the header counted, where enough headers stood in a row and
    /// two chunks that hold any, one after the other, begin with one, as what a sender writes
    /// does. Payload can still look so. When it ends, the next header disproves it.
    #[inline(never)]
    pub(super) fn prove(
        &mut self,
        slot: &mut SlotDirection,
        at: u32,
        unit_start: u64,
        chunk_start: u64,
    ) -> bool {
        let header = &Header::read(&self.window, at);
        if slot.close_code != CLOSE_NONE || !self.is_plausible(header) {
            return false;
        }
        if self.sync == FOUND {
            self.settle_fragment(header);
            return true;
        }
        let begins_chunk = unit_start == chunk_start;
        if self.proof >= PROOF && begins_chunk {
            self.settle_fragment(header);
            self.sync = FOUND;
            slot.unsynced += unit_start - slot.lost_at;
            slot.lost_at = 0;
            slot.loss = Loss::None as u8;
            return true;
        }
        // Nothing follows a Close frame, so it is no link of a chain.
        if header.opcode() == OPCODE_CLOSE {
            return false;
        }
        if header.is_fin() && (self.proof + 1 < PROOF || (self.proof < PROOF && begins_chunk)) {
            self.proof += 1;
        }
        if !header.is_control() {
            self.fragment = if header.is_fin() { 0 } else { FRAGMENT_UNKNOWN };
        }
        true
    }

    /// Whether RFC 6455 allows the header here, and RFC 7692 its RSV1. Of the frames without FIN
    /// that it allows, the empty ones are left out: zeros look like them.
    #[inline(always)]
    pub(super) fn is_plausible(&self, header: &Header) -> bool {
        let opcode = header.opcode();
        if (u8::from(header.masked) << 7) != self.mask
            || header.overlong
            || header.first & RSV & !RSV1 != 0
            || frame_class(opcode) == 6
        {
            return false;
        }
        if header.is_control() {
            if header.first & (FIN | RSV) != FIN || header.payload_len > MAX_CONTROL_PAYLOAD {
                return false;
            }
            let code = close_code(header, &self.window, self.at);
            return opcode != OPCODE_CLOSE
                || (header.payload_len != 1 && (code == CLOSE_NO_STATUS || is_sendable(code)));
        }
        let is_in_turn = if opcode == OPCODE_CONTINUATION {
            self.fragment != 0 && header.first & RSV1 == 0
        } else {
            self.fragment == 0 || self.fragment == FRAGMENT_UNSURE
        };
        is_in_turn
            && header.payload_len <= PROOF_MAX_PAYLOAD
            && (header.is_fin() || header.payload_len != 0)
    }

    /// The header is about to be counted, and tells what the ones before it did not.
    #[inline(always)]
    pub(super) fn settle_fragment(&mut self, header: &Header) {
        if self.fragment == FRAGMENT_UNSURE && !header.is_control() {
            self.fragment = if header.opcode() == OPCODE_CONTINUATION {
                FRAGMENT_UNKNOWN
            } else {
                0
            };
        }
    }
}
