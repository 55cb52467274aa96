//! The frame header of RFC 6455, section 5.2.

/// Continuation frame (RFC 6455, section 5.4).
pub const OPCODE_CONTINUATION: u8 = 0x0;
/// Text frame: UTF-8 (RFC 6455, section 5.6).
pub const OPCODE_TEXT: u8 = 0x1;
/// Binary frame (RFC 6455, section 5.6).
pub const OPCODE_BINARY: u8 = 0x2;
/// Close frame (RFC 6455, section 5.5.1).
pub const OPCODE_CLOSE: u8 = 0x8;
/// Ping frame (RFC 6455, section 5.5.2).
pub const OPCODE_PING: u8 = 0x9;
/// Pong frame (RFC 6455, section 5.5.3).
pub const OPCODE_PONG: u8 = 0xA;

/// The last fragment of a message, in the first byte of a header.
pub const FIN: u8 = 0x80;
/// Reserved for extensions; permessage-deflate marks compressed messages with it (RFC 7692).
pub const RSV1: u8 = 0x40;
/// All bits reserved for extensions.
pub const RSV: u8 = 0x70;

/// Bytes of the longest header: 2, a 64-bit length and a masking key.
pub const MAX_HEADER: u32 = 14;
/// The longest payload of a control frame (RFC 6455, section 5.5).
pub const MAX_CONTROL_PAYLOAD: u64 = 125;
/// Bytes of the longest legal control frame: 2, a masking key and the payload.
pub const MAX_CONTROL_FRAME: u32 = 131;

/// Bytes that a parser looks at: what was carried over and what one load brings.
pub const WINDOW: usize = 392;
/// Where in the window a frame may start: indices are masked with it, which is what proves to
/// the kernel's verifier (and to the compiler) that every access stays inside.
pub const WINDOW_START_MASK: u32 = 0xff;

const _: () = assert!(WINDOW > WINDOW_START_MASK as usize + MAX_CONTROL_FRAME as usize);

/// A frame header as it stands on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// FIN, RSV1 to RSV3 and the opcode.
    pub first: u8,
    /// Whether a masking key follows the length.
    pub masked: bool,
    /// Bytes of this header, the masking key included: 2 to 14.
    pub header_len: u32,
    /// Bytes of payload. More than 2^63-1 is illegal (RFC 6455, section 5.2).
    pub payload_len: u64,
    /// Whether the length could have been written in fewer bytes, which is illegal.
    pub overlong: bool,
}

impl Header {
    /// Reads the header at `start` of `window`. The caller compares `header_len` with the bytes
    /// that are there: what lies behind them is read as it is and means nothing.
    #[inline(always)]
    pub fn read(window: &[u8; WINDOW], start: u32) -> Self {
        let at = (start & WINDOW_START_MASK) as usize;
        let first = window[at];
        let second = window[at + 1];
        let masked = second & 0x80 != 0;
        let key_len = if masked { 4 } else { 0 };
        let short = u64::from(second & 0x7f);
        let (length_len, payload_len, overlong) = match short {
            126 => {
                let len = u64::from(u16::from_be_bytes([window[at + 2], window[at + 3]]));
                (2, len, len < 126)
            }
            127 => {
                let len = u64::from_be_bytes([
                    window[at + 2],
                    window[at + 3],
                    window[at + 4],
                    window[at + 5],
                    window[at + 6],
                    window[at + 7],
                    window[at + 8],
                    window[at + 9],
                ]);
                (8, len, len <= 0xffff)
            }
            _ => (0, short, false),
        };
        Self {
            first,
            masked,
            header_len: 2 + length_len + key_len,
            payload_len,
            overlong,
        }
    }

    /// The opcode, 0 to 15.
    #[inline(always)]
    pub fn opcode(&self) -> u8 {
        self.first & 0x0f
    }

    /// Whether this frame ends a message.
    #[inline(always)]
    pub fn is_fin(&self) -> bool {
        self.first & FIN != 0
    }

    /// Whether the opcode is that of a control frame, known or reserved (RFC 6455, section 5.5).
    #[inline(always)]
    pub fn is_control(&self) -> bool {
        self.first & 0x08 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Header {
        let mut window = [0xee; WINDOW];
        window[7..7 + bytes.len()].copy_from_slice(bytes);
        Header::read(&window, 7)
    }

    #[test]
    fn the_examples_of_rfc_6455_section_5_7() {
        let hello = read(&[0x81, 0x05]);
        assert_eq!(
            (hello.opcode(), hello.is_fin(), hello.masked),
            (OPCODE_TEXT, true, false)
        );
        assert_eq!((hello.header_len, hello.payload_len), (2, 5));
        let masked = read(&[0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d]);
        assert_eq!(
            (masked.header_len, masked.payload_len, masked.masked),
            (6, 5, true)
        );
        let first = read(&[0x01, 0x03]);
        assert!(!first.is_fin());
        let binary = read(&[0x82, 0x7e, 0x01, 0x00]);
        assert_eq!((binary.header_len, binary.payload_len), (4, 256));
        let large = read(&[0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0]);
        assert_eq!((large.header_len, large.payload_len), (10, 65536));
    }

    #[test]
    fn lengths_at_the_borders_of_their_encodings() {
        assert!(!read(&[0x82, 125]).overlong);
        assert!(read(&[0x82, 126, 0, 125]).overlong);
        assert!(!read(&[0x82, 126, 0, 126]).overlong);
        assert!(read(&[0x82, 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff]).overlong);
        assert!(!read(&[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]).overlong);
        assert_eq!(
            read(&[0x82, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 1]).payload_len,
            0xff00_0000_0000_0001
        );
    }

    #[test]
    fn a_start_beyond_the_window_stays_inside_it() {
        let window = [0u8; WINDOW];
        assert_eq!(Header::read(&window, u32::MAX).header_len, 2);
    }
}
