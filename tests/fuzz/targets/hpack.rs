//! Header blocks: whatever a decoder tells that has missed the first blocks, one that has seen all tells too.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringtap_exchange::fuzzing::{Decoder, Field};

/// Names and values; `None` for what is not known.
fn decode(table: &mut Decoder, block: &[u8]) -> Option<Vec<Option<(Vec<u8>, Vec<u8>)>>> {
    let mut fields = Vec::new();
    let decoded = table.decode(block, |field| {
        fields.push(match field {
            Field::Known(name, value) => Some((name.to_vec(), value.to_vec())),
            Field::Unknown => None,
        });
    });
    decoded.ok().map(|()| fields)
}

fuzz_target!(|input: &[u8]| {
    let Some((missed, mut rest)) = input.split_first() else { return };
    let (mut whole, mut late) = (Decoder::default(), Decoder::default());
    late.forget();
    let mut number = 0_usize;
    while let Some((len, behind)) = rest.split_first() {
        let (block, behind) = behind.split_at(usize::from(*len).min(behind.len()));
        rest = behind;
        // A peer that breaks the rules says nothing that could be right.
        let Some(said) = decode(&mut whole, block) else { return };
        assert!(said.iter().all(Option::is_some));
        assert!(whole.kept_bytes() < 1 << 20, "{} bytes are kept", whole.kept_bytes());
        if number >= usize::from(missed % 8) {
            let told = decode(&mut late, block).expect("one that has seen all could read it");
            assert_eq!(told.len(), said.len());
            assert!(told.iter().zip(&said).all(|(told, said)| told.is_none() || told == said), "{told:?} {said:?}");
        }
        number += 1;
    }
});
