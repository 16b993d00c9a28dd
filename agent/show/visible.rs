//! Text from traffic, made fit for a terminal: what drives it, reorders it or hides is written out.

use std::fmt::Write as _;

/// Whether a character acts on what is around it, or cannot be seen.
pub(super) fn is_odd(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
            | '\u{fe00}'..='\u{fe0d}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

fn escaped(text: &str, keep: fn(char) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            c if !is_odd(c) || keep(c) => out.push(c),
            // Never fails: a string takes everything.
            c if u32::from(c) < 0x80 => _ = write!(out, "\\x{:02x}", u32::from(c)),
            c => _ = write!(out, "\\u{{{:x}}}", u32::from(c)),
        }
    }
    out
}

/// A text that is to stay on its line.
pub(super) fn line(text: &str) -> String {
    escaped(text, |_| false)
}

/// A text of several lines.
pub(super) fn lines(text: &str) -> String {
    escaped(&text.replace("\r\n", "\n"), |c| c == '\n' || c == '\t')
}

/// JSON, in whose texts the same is written as JSON writes it. Between them there are only spaces and line ends.
pub(super) fn json(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_odd(c) && c != '\n' {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Never fails: a string takes everything.
                _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_acts_is_written_out() {
        assert_eq!(line("a\x1b[31m\r\nb\t\u{9b}2J"), "a\\x1b[31m\\x0d\\x0ab\\x09\\u{9b}2J");
        assert_eq!(lines("a\r\nb\tc\rd\u{7}"), "a\nb\tc\\x0dd\\x07");
        assert_eq!(line("user\u{202e}nimda\u{2066}"), "user\\u{202e}nimda\\u{2066}");
        assert_eq!(line("grüße, 世界 😀"), "grüße, 世界 😀");
        assert_eq!(json("{\"a\": \"\u{202e}\u{7f}\u{e0041}\"}"), "{\"a\": \"\\u202e\\u007f\\udb40\\udc41\"}");
    }

    proptest! {
        #[test]
        fn nothing_acts_any_more(text in any::<String>()) {
            prop_assert!(!line(&text).contains(is_odd));
            prop_assert!(!lines(&text).contains(|c| is_odd(c) && c != '\n' && c != '\t'));
        }

        /// What is written out in JSON stands for the same text.
        #[test]
        fn json_stays_what_it_was(text in any::<String>()) {
            let written = json(&serde_json::to_string(&text).expect("a text"));
            prop_assert!(!written.contains(is_odd));
            prop_assert_eq!(serde_json::from_str::<String>(&written).expect("JSON"), text);
        }
    }
}
