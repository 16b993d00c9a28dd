//! The Huffman code of header strings (RFC 7541, appendix B).
//!
//! The code is canonical: the lengths alone define it. Codes of up to ten bits, which nearly all text consists of, are
//! looked up at once; longer ones by their length.

/// Code lengths by byte; the last one is the end of a string, which never occurs in one.
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28,
    28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12,
    10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6,
    5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22,
    22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20,
    22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28,
    27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28,
    27, 27, 27, 27, 27, 26, 30,
];
const END_OF_STRING: u16 = 256;
const LENGTH_MAX: usize = 30;
const FAST_BITS: u32 = 10;

struct Code {
    /// By the next bits: length above, byte below; 0: longer than that.
    fast: [u16; 1 << FAST_BITS],
    /// By length: the first code, the number of codes, and where its symbols begin in `symbols`.
    first: [u32; LENGTH_MAX + 1],
    count: [u32; LENGTH_MAX + 1],
    start: [u16; LENGTH_MAX + 1],
    /// Bytes by length, then by value.
    symbols: [u16; 257],
}

static CODE: Code = code();

#[expect(clippy::cast_possible_truncation, reason = "lengths are 30 at most, symbols 256, and both are constants")]
const fn code() -> Code {
    let mut code = Code {
        fast: [0; 1 << FAST_BITS],
        first: [0; LENGTH_MAX + 1],
        count: [0; LENGTH_MAX + 1],
        start: [0; LENGTH_MAX + 1],
        symbols: [0; 257],
    };
    let (mut next, mut placed, mut length) = (0_u32, 0_usize, 1_usize);
    while length <= LENGTH_MAX {
        next <<= 1;
        code.first[length] = next;
        code.start[length] = placed as u16;
        let mut symbol = 0;
        while symbol < LENGTHS.len() {
            if LENGTHS[symbol] as usize == length {
                code.symbols[placed] = symbol as u16;
                placed += 1;
                let spare = FAST_BITS.saturating_sub(length as u32);
                let mut low = 0;
                while length as u32 <= FAST_BITS && low < 1 << spare {
                    code.fast[((next << spare) | low) as usize] = ((length as u16) << 8) | symbol as u16;
                    low += 1;
                }
                next += 1;
            }
            symbol += 1;
        }
        code.count[length] = next - code.first[length];
        length += 1;
    }
    code
}

/// Appends the decoded bytes. False: the string is not in this code.
pub(super) fn decode(bytes: &[u8], out: &mut Vec<u8>) -> bool {
    let (mut window, mut held) = (0_u64, 0_u32);
    let mut bytes = bytes.iter();
    loop {
        while held <= 56 {
            let Some(byte) = bytes.next() else { break };
            window |= u64::from(*byte) << (56 - held);
            held += 8;
        }
        let fast = CODE.fast[usize::try_from(window >> (64 - FAST_BITS)).unwrap_or(0)];
        let [symbol, length] = fast.to_le_bytes();
        let (symbol, length) = if fast == 0 { long(window) } else { (u16::from(symbol), u32::from(length)) };
        if length > held {
            // The rest is padding: fewer than eight bits, all set.
            return held == 0 || (held < 8 && (window >> (64 - held)).trailing_ones() >= held);
        }
        let Ok(byte) = u8::try_from(symbol) else { return false };
        out.push(byte);
        window <<= length;
        held -= length;
    }
}

/// Symbol and length of a code with more bits than are looked up at once.
fn long(window: u64) -> (u16, u32) {
    for length in FAST_BITS + 1..=u32::try_from(LENGTH_MAX).unwrap_or(u32::MAX) {
        let at = length as usize;
        let code = u32::try_from(window >> (64 - length)).unwrap_or(u32::MAX);
        let nth = code.wrapping_sub(CODE.first[at]);
        if nth < CODE.count[at] {
            return (CODE.symbols[usize::from(CODE.start[at]) + nth as usize], length);
        }
    }
    (END_OF_STRING, 30)
}

#[cfg(test)]
mod tests {
    use super::decode;

    fn text(bytes: &[u8]) -> Option<String> {
        let mut out = Vec::new();
        decode(bytes, &mut out).then(|| String::from_utf8(out).expect("text"))
    }

    /// The examples of RFC 7541, appendix C.
    #[test]
    fn the_examples_of_the_book() {
        let url = [0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
        assert_eq!(text(&url).as_deref(), Some("www.example.com"));
        assert_eq!(text(&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf]).as_deref(), Some("no-cache"));
        assert_eq!(text(&[0x64, 0x02]).as_deref(), Some("302"));
        assert_eq!(text(&[]).as_deref(), Some(""));
    }

    /// Padding of eight bits or of zeros, and the end of a string inside of one, are refused.
    #[test]
    fn what_is_not_in_the_code() {
        assert_eq!(text(&[0x64, 0x02, 0xff]), None);
        assert_eq!(text(&[0x00, 0x00]), None, "padded with zeros");
        assert_eq!(text(&[0xff, 0xff, 0xff, 0xff]), None);
    }
}
