//! Content codings: no body comes to more than it may, and the beginning of one comes to a beginning of what the whole
//! comes to, or the other way round.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringtap_batch::decoded;

const CODINGS: [&str; 8] = ["gzip", "deflate", "br", "zstd", "gzip, br", "zstd, gzip", "deflate, deflate", "br, zstd, gzip"];
const LIMIT: usize = 32 << 10;

fuzz_target!(|input: &[u8]| {
    let Some(([coding, cut], body)) = input.split_first_chunk() else { return };
    let coding = CODINGS[usize::from(*coding) % CODINGS.len()];
    let Some(whole) = decoded(coding, body, LIMIT) else { return };
    assert!(whole.len() <= LIMIT);
    let beginning = &body[..body.len() * usize::from(*cut) / 255];
    if let Some(part) = decoded(coding, beginning, LIMIT) {
        // A stream of deflate says by its first two bytes whether it has a head; one that breaks later can come to less.
        let fits = whole.starts_with(&part) || part.starts_with(&whole) || beginning.len() < 2;
        assert!(fits, "{coding}");
    }
});
