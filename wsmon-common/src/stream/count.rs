//! What a frame adds to the counters of its direction, and what RFC 6455 forbids about it.

use super::{Direction, FRAGMENT_UNKNOWN, Violation};
use crate::frame::{
    Header, MAX_CONTROL_PAYLOAD, OPCODE_BINARY, OPCODE_CLOSE, OPCODE_CONTINUATION, RSV, RSV1,
    WINDOW, WINDOW_START_MASK,
};
use crate::slot::{CLOSE_NO_STATUS, CLOSE_NONE, SlotDirection, frame_class, size_bucket};

impl Direction {
    #[inline(always)]
    pub(super) fn count(&mut self, slot: &mut SlotDirection, header: &Header, at: u32) {
        let opcode = header.opcode();
        slot.frames[frame_class(opcode)] += 1;
        slot.payload += header.payload_len;
        let masking = u8::from(header.masked) << 7;
        // The usual frame: a whole message, masked as it must be, nothing odd about it.
        let whole = header.first & 0xbf;
        if (whole == 0x81 || whole == 0x82)
            && masking == self.mask
            && self.fragment == 0
            && !header.overlong
            && slot.close_code == CLOSE_NONE
        {
            self.fragment = opcode;
            self.fragment_rsv1 = header.first & RSV1;
            self.message = header.payload_len;
            return;
        }
        self.count_unusual(slot, at);
    }

    /// The header is read again: a reference to it would cost the stack that the kernel has little
    /// of.
    #[inline(never)]
    pub(super) fn count_unusual(&mut self, slot: &mut SlotDirection, at: u32) {
        let header = &Header::read(&self.window, at);
        let masking = u8::from(header.masked) << 7;
        let opcode = header.opcode();
        let mut seen = 0u16;
        let mut violate = |violation: Violation| seen |= 1 << violation as u16;
        if header.first & RSV & !RSV1 != 0 {
            violate(Violation::ReservedBits);
        }
        if masking != self.mask {
            violate(Violation::Masking);
        }
        if header.overlong {
            violate(Violation::OverlongLength);
        }
        if slot.close_code != CLOSE_NONE {
            violate(Violation::AfterClose);
        }
        if frame_class(opcode) == 6 {
            violate(Violation::ReservedOpcode);
        } else if header.is_control() {
            if !header.is_fin() {
                violate(Violation::ControlFragmented);
            }
            if header.first & RSV1 != 0 {
                violate(Violation::MisplacedRsv1);
            }
            if header.payload_len > MAX_CONTROL_PAYLOAD {
                violate(Violation::ControlTooLong);
            } else if opcode == OPCODE_CLOSE {
                let code = close_code(header, &self.window, at);
                if header.payload_len == 1 {
                    violate(Violation::CloseTooShort);
                } else if header.payload_len != 0 && !is_sendable(code) {
                    violate(Violation::CloseCode);
                }
                if slot.close_code == CLOSE_NONE {
                    slot.close_code = code;
                }
            }
        } else if opcode == OPCODE_CONTINUATION {
            if self.fragment == 0 {
                violate(Violation::UnexpectedContinuation);
            }
            if header.first & RSV1 != 0 {
                violate(Violation::MisplacedRsv1);
            }
            self.message = self.message.saturating_add(header.payload_len);
        } else {
            if self.fragment != 0 {
                violate(Violation::InterleavedMessage);
            }
            self.fragment = opcode;
            self.fragment_rsv1 = header.first & RSV1;
            self.message = header.payload_len;
        }
        slot.violations |= seen;
    }

    #[inline(always)]
    pub(super) fn end_message(&mut self, slot: &mut SlotDirection) {
        if self.fragment != FRAGMENT_UNKNOWN {
            slot.messages[usize::from(self.fragment == OPCODE_BINARY)] += 1;
            // Always there; a checked access that can fail is one that cannot panic.
            if let Some(messages) = slot.sizes.get_mut(size_bucket(self.message)) {
                *messages += 1;
            }
            if self.fragment_rsv1 != 0 {
                slot.rsv1_messages += 1;
            }
        }
        self.fragment = 0;
    }
}

/// The code of a Close frame whose payload is in the window.
#[inline(always)]
pub fn close_code(header: &Header, window: &[u8; WINDOW], start: u32) -> u16 {
    if header.payload_len < 2 {
        return CLOSE_NO_STATUS;
    }
    let at = (start & WINDOW_START_MASK) as usize;
    if header.masked {
        u16::from_be_bytes([
            window[at + 6] ^ window[at + 2],
            window[at + 7] ^ window[at + 3],
        ])
    } else {
        u16::from_be_bytes([window[at + 2], window[at + 3]])
    }
}

/// Whether an endpoint may send this code (RFC 6455, section 7.4 and the registry of codes).
#[inline(always)]
pub(super) fn is_sendable(code: u16) -> bool {
    (code >= 1000 && code <= 1014 && code != 1004 && code != 1005 && code != 1006)
        || (code >= 3000 && code <= 4999)
}
