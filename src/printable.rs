//! Text from records, made safe for a terminal.

use std::borrow::Cow;
use std::fmt::Write;

use serde::Serialize;

/// A text on one line, in which what steers a terminal or turns the reading direction is escaped as JSON
/// escapes it: a record's key must not clear a screen, forge a line of a table or hide what stands in it.
pub(crate) fn line(text: &str) -> Cow<'_, str> {
    escape(text, |c| c.is_control() || turns(c))
}

/// The same for a text that may have several lines.
pub(crate) fn lines(text: &str) -> Cow<'_, str> {
    escape(text, |c| c != '\n' && (c.is_control() || turns(c)))
}

/// A value as JSON on one line. JSON itself escapes the controls below U+0020 only.
///
/// # Errors
/// Where the value cannot be JSON.
pub(crate) fn json(value: &impl Serialize) -> serde_json::Result<String> {
    Ok(in_json(serde_json::to_string(value)?))
}

/// A value as JSON, indented.
///
/// # Errors
/// Where the value cannot be JSON.
pub(crate) fn json_pretty(value: &impl Serialize) -> serde_json::Result<String> {
    Ok(in_json(serde_json::to_string_pretty(value)?))
}

/// Outside of its texts JSON is ASCII, so each of these stands in one.
fn in_json(text: String) -> String {
    match beyond_ascii(&text) {
        Cow::Borrowed(_) => text,
        Cow::Owned(escaped) => escaped,
    }
}

/// The same for the controls beyond ASCII only, where those below it are escaped already or are the
/// program's own (JSON, a coloured log).
pub(crate) fn beyond_ascii(text: &str) -> Cow<'_, str> {
    escape(text, |c| c >= '\u{7f}' && (c.is_control() || turns(c)))
}

/// Whether a character changes the direction of what follows, or ends a line although it is no
/// control (Unicode's Bidi_Control, and U+2028 and U+2029).
fn turns(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn escape(text: &str, unsafe_here: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&unsafe_here) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\n' if unsafe_here(c) => out.push_str("\\n"),
            '\r' if unsafe_here(c) => out.push_str("\\r"),
            '\t' if unsafe_here(c) => out.push_str("\\t"),
            // All of these are in the basic plane: four digits hold them.
            c if unsafe_here(c) => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_steers_a_terminal_is_shown_as_its_code() {
        assert_eq!(line("\u{1b}[2J\u{9b}31m\u{202e}a\nb\t"), "\\u001b[2J\\u009b31m\\u202ea\\nb\\t");
        assert_eq!(lines("a\n\u{7f}b"), "a\n\\u007fb");
        assert_eq!(line("größe 大 🎉"), "größe 大 🎉");
        assert_eq!(json(&"\u{9b}\u{202e}\u{1b}").unwrap(), "\"\\u009b\\u202e\\u001b\"");
    }

    proptest! {
        #[test]
        fn nothing_shown_holds_a_control(text in any::<String>()) {
            prop_assert!(!line(&text).contains(|c: char| c.is_control() || turns(c)));
            let shown = json_pretty(&vec![&text]).unwrap();
            prop_assert!(!shown.contains(|c: char| c != '\n' && (c.is_control() || turns(c))));
        }

        #[test]
        fn json_says_the_same_as_before(text in any::<String>()) {
            let back: String = serde_json::from_str(&json(&text).unwrap()).unwrap();
            prop_assert_eq!(back, text);
        }
    }
}
