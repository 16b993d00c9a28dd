//! The corpus of header blocks, and what a decoder knows that has missed some.

use std::path::PathBuf;

use super::{Decoder, Field};

/// Names and values; what is not known as `?`.
fn decode(table: &mut Decoder, block: &[u8]) -> Option<Vec<(String, String)>> {
    let mut fields = Vec::new();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let decoded = table.decode(block, |field| {
        fields.push(match field {
            Field::Known(name, value) => (text(name), text(value)),
            Field::Unknown => ("?".to_owned(), "?".to_owned()),
        });
    });
    decoded.ok().map(|()| fields)
}

fn bytes_of(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("ascii"), 16).expect("hexadecimal");
    digits.chunks(2).map(byte).collect()
}

/// A block and its fields.
type Case = (Vec<u8>, Vec<(String, String)>);

/// Blocks and their fields, story by story.
fn stories() -> Vec<(PathBuf, Vec<Case>)> {
    let Some(corpora) = crate::corpora("hpack") else { return Vec::new() };
    let mut stories = Vec::new();
    for encoder in std::fs::read_dir(corpora).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        if !encoder.is_dir() || encoder.ends_with("raw-data") {
            continue;
        }
        for story in std::fs::read_dir(&encoder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
            if story.extension().is_none_or(|end| end != "json") {
                continue;
            }
            let text = std::fs::read_to_string(&story).expect("a story");
            let parsed: serde_json::Value = serde_json::from_str(&text).expect("JSON");
            let cases = parsed["cases"].as_array().expect("cases").iter().map(|case| {
                let field = |one: &serde_json::Value| {
                    let (name, value) = one.as_object().and_then(|one| one.iter().next()).expect("a field");
                    (name.clone(), value.as_str().expect("text").to_owned())
                };
                let fields = case["headers"].as_array().expect("fields").iter().map(field).collect();
                (bytes_of(case["wire"].as_str().expect("hexadecimal")), fields)
            });
            stories.push((story, cases.collect()));
        }
    }
    stories
}

#[test]
fn every_story_of_every_encoder_decodes_exactly() {
    let stories = stories();
    for (story, cases) in &stories {
        let mut table = Decoder::default();
        for (number, (block, fields)) in cases.iter().enumerate() {
            let decoded = decode(&mut table, block);
            assert_eq!(decoded.as_ref(), Some(fields), "{} case {number}", story.display());
        }
    }
    if crate::corpora("hpack").is_some() {
        assert!(stories.len() > 100, "{} stories", stories.len());
    }
}

/// Joined at any block: what is told is what was said, and what cannot be known is told to be unknown.
#[test]
fn a_late_decoder_never_guesses() {
    let (mut told, mut unknown) = (0, 0);
    for (story, cases) in stories() {
        for joined in 1..cases.len().min(12) {
            let mut table = Decoder::default();
            table.forget();
            for (block, fields) in &cases[joined..] {
                let decoded = decode(&mut table, block).unwrap_or_else(|| panic!("{}", story.display()));
                assert_eq!(decoded.len(), fields.len());
                for (known, said) in decoded.iter().zip(fields) {
                    if known.0 == "?" {
                        unknown += 1;
                    } else {
                        told += 1;
                        assert_eq!(known, said, "{} joined at {joined}", story.display());
                    }
                }
            }
        }
    }
    assert!(told >= unknown * 5, "{told} fields known, {unknown} not");
}

/// A table that is emptied is known as a whole again.
#[test]
fn a_size_update_ends_the_ignorance() {
    let mut table = Decoder::default();
    table.forget();
    assert_eq!(decode(&mut table, &[0xbe]), Some(vec![("?".into(), "?".into())]));
    assert_eq!(decode(&mut table, &[0x20, 0x3f, 0xe1, 0x1f]), Some(vec![]));
    assert_eq!(decode(&mut table, &[0xbe]), None, "there is no such entry");
}

/// A value whose name is not known is not told either: it can be a secret.
#[test]
fn values_without_a_name_stay_untold() {
    let mut table = Decoder::default();
    table.forget();
    let block = [&[0x7e, 0x06][..], b"secret"].concat();
    assert_eq!(decode(&mut table, &block), Some(vec![("?".into(), "?".into())]));
}

/// What a peer may not send: index 0, entries that do not exist, endless numbers, strings that end too late.
#[test]
fn broken_blocks_are_refused() {
    for block in
        [&[0x80][..], &[0xbe], &[0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], &[0x40, 0x05, b'a'], &[0x40, 0x81, 0x00]]
    {
        assert_eq!(decode(&mut Decoder::default(), block), None, "{block:x?}");
    }
}
