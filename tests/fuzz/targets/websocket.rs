//! WebSocket behind its upgrade, with compression: any bytes, in any records, with any gaps.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringtap_exchange::Direction;
use script::Piece;

#[path = "../script.rs"]
mod script;

fuzz_target!(|input: &[u8]| {
    let upgrade = [
        Piece::Bytes(Direction::Sent, b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n"),
        Piece::Bytes(
            Direction::Received,
            b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n",
        ),
    ];
    script::check(input, &upgrade);
});
