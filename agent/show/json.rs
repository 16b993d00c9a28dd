//! JSON in lines, with every member where and as it was written: numbers keep their digits, members their order.

use serde::de::IgnoredAny;

use super::{
    paint::{Paint, Style},
    visible,
};

/// The JSON values that a text is made of, one after another. `None`: it is something else.
pub(super) fn values(text: &str) -> Option<Vec<&str>> {
    let mut stream = serde_json::Deserializer::from_str(text).into_iter::<IgnoredAny>();
    let mut values = Vec::new();
    let mut from = 0;
    while let Some(value) = stream.next() {
        value.ok()?;
        values.push(text[from..stream.byte_offset()].trim());
        from = stream.byte_offset();
    }
    (!values.is_empty()).then_some(values)
}

/// A value in lines of two spaces a level. It is one that [`values`] has found.
pub(super) fn pretty(text: &str, paint: Paint) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    let (mut at, mut depth) = (0, 0_usize);
    let bytes = text.as_bytes();
    let next = |at: usize| bytes[at..].iter().find(|byte| !byte.is_ascii_whitespace()).copied();
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.push_str(&"  ".repeat(depth));
    };
    while let Some(&byte) = bytes.get(at) {
        let len = token_len(&bytes[at..]);
        let token = &text[at..at + len];
        at += len;
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => {}
            b'{' | b'[' => {
                out.push(char::from(byte));
                depth += 1;
                if !matches!(next(at), Some(b'}' | b']')) {
                    line(&mut out, depth);
                }
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                if !out.ends_with(['{', '[']) {
                    line(&mut out, depth);
                }
                out.push(char::from(byte));
            }
            b',' => {
                out.push(',');
                line(&mut out, depth);
            }
            b':' => out.push_str(": "),
            b'"' if next(at) == Some(b':') => out.push_str(&paint.paint(Style::Name, &visible::json(token))),
            b'"' => out.push_str(&paint.paint(Style::Text, &visible::json(token))),
            _ => out.push_str(&paint.paint(Style::Value, token)),
        }
    }
    out
}

/// Bytes of the token that begins here: a text with its quotes, a word, or one sign.
fn token_len(bytes: &[u8]) -> usize {
    match bytes[0] {
        b'"' => {
            let mut escape = false;
            let end = bytes[1..].iter().position(|&byte| {
                let ends = byte == b'"' && !escape;
                escape = byte == b'\\' && !escape;
                ends
            });
            end.map_or(bytes.len(), |end| end + 2)
        }
        b'{' | b'}' | b'[' | b']' | b',' | b':' | b' ' | b'\t' | b'\r' | b'\n' => 1,
        _ => bytes.iter().position(|byte| b"{}[],:\" \t\r\n".contains(byte)).unwrap_or(bytes.len()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[test]
    fn members_keep_their_order_and_numbers_their_digits() {
        let text = r#"{"z":1.10,"a":[],"b":{ },"c":[1e400,{"d\"":"x:,{"}],"z":12345678901234567890123}"#;
        let shown = "{\n  \"z\": 1.10,\n  \"a\": [],\n  \"b\": {},\n  \"c\": [\n    1e400,\n    {\n      \"d\\\"\": \"x:,{\"\n    }\n  ],\n  \"z\": 12345678901234567890123\n}";
        assert_eq!(pretty(text, Paint::none()), shown);
        assert_eq!(pretty("\"\u{202e}\"", Paint::none()), "\"\\u202e\"");
    }

    #[test]
    fn one_value_or_many_or_none() {
        assert_eq!(values("{\"a\":1}\n[2]\n"), Some(vec!["{\"a\":1}", "[2]"]));
        assert_eq!(values("{\"a\":1}{\"b\":2}"), Some(vec!["{\"a\":1}", "{\"b\":2}"]));
        assert_eq!((values(""), values("{\"a\":1} and more"), values("{\"a\":")), (None, None, None));
        assert_eq!(values(&"[".repeat(100_000)), None, "what is nested too deeply is text");
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from)
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                proptest::collection::btree_map(any::<String>(), inner, 0..5)
                    .prop_map(|map| Value::from(map.into_iter().collect::<serde_json::Map<_, _>>()))
            ]
        })
    }

    proptest! {
        #[test]
        fn it_says_the_same(value in any_json()) {
            let text = value.to_string();
            let shown = pretty(&text, Paint::none());
            prop_assert_eq!(serde_json::from_str::<Value>(&shown).expect("JSON"), value);
        }

        #[test]
        fn any_text_is_told_apart(text in any::<String>()) {
            for value in values(&text).unwrap_or_default() {
                pretty(value, Paint::none());
            }
        }
    }
}
