//! The trace that a request is part of, if it says so in the form of W3C's Trace Context.

/// Ids and flags.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Trace {
    pub(super) id: [u8; 16],
    pub(super) span: [u8; 8],
    pub(super) flags: u8,
}

impl Trace {
    /// `None`: it is not valid.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.trim().split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let [version] = hex(version)?;
        let [flags] = hex(flags)?;
        // Version 0 has four parts; later ones may have more.
        let whole = version != 0xff && (version != 0 || parts.next().is_none());
        let (id, span) = (hex(trace)?, hex(span)?);
        (whole && id != [0; 16] && span != [0; 8]).then_some(Self { id, span, flags })
    }
}

/// Lower-case digits, as many as fill the array.
fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}
