//! The one place where text from outside is made safe for a terminal.

use std::{borrow::Cow, fmt::Write as _};

/// `text` with everything replaced that a terminal would act on rather than show: control
/// characters (ESC, C1), line and paragraph separators, bidirectional and zero-width marks.
/// Escapes are those of Rust's string literals: `\u{1b}`, `\n`.
pub fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(acts_on_terminal) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if acts_on_terminal(character) {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    Cow::Owned(shown)
}

/// JSON text with the same characters as JSON escapes. Those below U+0020 are escaped by any JSON
/// writer, and the others stand only inside strings.
pub fn escape_json(json: &str) -> Cow<'_, str> {
    let acts = |character: char| character > '~' && acts_on_terminal(character);
    if !json.contains(acts) {
        return Cow::Borrowed(json);
    }
    let mut shown = String::with_capacity(json.len() + 16);
    for character in json.chars() {
        if acts(character) {
            for unit in character.encode_utf16(&mut [0; 2]) {
                // Writing to a String does not fail.
                let _ = write!(shown, "\\u{unit:04x}");
            }
        } else {
            shown.push(character);
        }
    }
    Cow::Owned(shown)
}

fn acts_on_terminal(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_text_of_any_script_passes_unchanged() {
        for text in ["/chat?room=1", "grüße", "会话", "a\\b"] {
            assert!(matches!(escape(text), Cow::Borrowed(same) if same == text));
        }
    }

    #[test]
    fn what_moves_the_cursor_or_colours_the_terminal_is_spelled_out() {
        assert_eq!(escape("\x1b[2Jx"), "\\u{1b}[2Jx");
        assert_eq!(escape("a\r\nb\tc"), "a\\r\\nb\\tc");
        assert_eq!(escape("\u{9b}31m"), "\\u{9b}31m");
        assert_eq!(escape("\u{7f}"), "\\u{7f}");
    }

    #[test]
    fn json_stays_json_and_says_the_same() {
        let text = "a\u{9b}\u{7f}\u{202e}\u{e0041}\x1b\n";
        let json = serde_json::to_string_pretty(&[text]).unwrap();
        let shown = escape_json(&json);
        assert!(!shown.contains(|character| character > '~'));
        assert_eq!(serde_json::from_str::<[String; 1]>(&shown).unwrap(), [text]);
    }

    #[test]
    fn marks_that_reorder_or_hide_text_are_spelled_out() {
        assert_eq!(escape("/a\u{202e}b"), "/a\\u{202e}b");
        assert_eq!(escape("\u{200b}"), "\\u{200b}");
    }
}
