//! HTTP/1: any bytes, in any records, with any gaps.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../script.rs"]
mod script;

fuzz_target!(|input: &[u8]| {
    script::check(input, &[]);
});
