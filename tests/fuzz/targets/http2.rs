//! HTTP/2 behind its greetings: any bytes, in any records, with any gaps.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringtap_exchange::Direction;
use script::Piece;

#[path = "../script.rs"]
mod script;

fuzz_target!(|input: &[u8]| {
    // The greetings, so that the input is frames.
    let greetings = [
        Piece::Bytes(Direction::Sent, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"),
        Piece::Bytes(Direction::Received, b"\0\0\0\x04\0\0\0\0\0"),
    ];
    script::check(input, &greetings);
    script::check(input, &[]);
});
