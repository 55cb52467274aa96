//! The one place where text that somebody else wrote (the network, a process's name) becomes text
//! that is kept, printed or exported.

use std::fmt::Write;

/// Characters of a text that are kept.
pub const MAX_CHARS: usize = 256;

/// `bytes` as text that is safe on a terminal, in JSON and in a label: control characters,
/// invisible characters and invalid UTF-8 are written as escapes, and it is cut after
/// [`MAX_CHARS`] characters, with an ellipsis.
pub fn clean(bytes: &[u8]) -> String {
    clean_to(bytes, MAX_CHARS)
}

/// The same, cut after `max` characters of the input.
pub fn clean_to(bytes: &[u8], max: usize) -> String {
    // A character has at most four bytes; nothing behind them can matter.
    let bytes = &bytes[..bytes.len().min(max.saturating_mul(4).saturating_add(4))];
    let mut text = String::with_capacity(bytes.len().min(max));
    let mut left = max;
    for chunk in bytes.utf8_chunks() {
        for char in chunk.valid().chars() {
            if left == 0 {
                text.push('…');
                return text;
            }
            left -= 1;
            if is_harmful(char) {
                text.extend(char.escape_unicode());
            } else {
                text.push(char);
            }
        }
        for byte in chunk.invalid() {
            if left == 0 {
                text.push('…');
                return text;
            }
            left -= 1;
            // Writing to a String cannot fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// Whether a character moves the cursor, changes colours, hides, or turns the direction of text.
fn is_harmful(char: char) -> bool {
    char.is_control()
        || matches!(char,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_text_stays_as_it_is() {
        assert_eq!(clean("/chat/Zürich 日本".as_bytes()), "/chat/Zürich 日本");
    }

    #[test]
    fn a_terminal_escape_is_spelled_out() {
        assert_eq!(clean(b"a\x1b[2Jb\nc\x7f"), "a\\u{1b}[2Jb\\u{a}c\\u{7f}");
        assert_eq!(clean("\u{9b}2J\u{202e}x".as_bytes()), "\\u{9b}2J\\u{202e}x");
    }

    #[test]
    fn invalid_utf8_is_spelled_out() {
        assert_eq!(clean(b"a\xff\xc3"), "a\\xff\\xc3");
    }

    #[test]
    fn a_long_text_is_cut() {
        let cut = clean(&b"a".repeat(100_000));
        assert_eq!(cut.chars().count(), MAX_CHARS + 1);
        assert!(cut.ends_with('…'));
        assert!(clean(&b"\xff".repeat(100_000)).ends_with('…'));
        assert_eq!(clean(&[b'a'; MAX_CHARS]), "a".repeat(MAX_CHARS));
        assert!(clean("日".repeat(1000).as_bytes()).ends_with('…'));
    }
}
