//! Content codings: what `Content-Encoding` says was done to a body, undone.

use std::io::{Read, copy};

use ringtap_exchange::{Body, Head};

/// Codings of one body at most: more are only ever sent to do harm.
const CODINGS_MAX: usize = 4;
/// Memory of a zstd decoder, as a power of two: what RFC 8878 asks every receiver to have.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// Bytes that are read at a time.
const BUFFER: usize = 16 << 10;

/// A body without its codings.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plain {
    /// What was kept, or what that comes to when it is decoded.
    pub(crate) bytes: Vec<u8>,
    /// The codings that were undone, in the order in which the header names them.
    pub(crate) decoded: Option<String>,
    /// It comes to more bytes than a body may have.
    pub(crate) cut: bool,
}

/// Takes the bytes out of a body, and undoes their codings. A body that was not kept to its end comes to its beginning;
/// one that is not what its header says stays as it is.
pub(crate) fn plain(head: &Head, body: &mut Body, limit: usize) -> Plain {
    let bytes = std::mem::take(&mut body.bytes);
    let codings: Vec<&str> = head
        .headers
        .get_all("content-encoding")
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case("identity"))
        .collect();
    if codings.is_empty() || bytes.is_empty() || codings.len() > CODINGS_MAX {
        return Plain { bytes, ..Plain::default() };
    }
    match decode(&bytes, &codings, limit) {
        Some((plain, cut)) => Plain { bytes: plain, decoded: Some(codings.join(", ")), cut },
        None => Plain { bytes, ..Plain::default() },
    }
}

/// The plain bytes, and whether there are more of them. `None`: there are none to be had.
fn decode(bytes: &[u8], codings: &[&str], limit: usize) -> Option<(Vec<u8>, bool)> {
    let mut reader: Box<dyn Read + '_> = Box::new(bytes);
    for coding in codings.iter().rev() {
        reader = undo(coding, reader)?;
    }
    let mut plain = Vec::new();
    // An error behind some bytes is the end of what was kept.
    let _ = copy(&mut reader.by_ref().take(limit as u64), &mut plain);
    if plain.is_empty() {
        return None;
    }
    let more = plain.len() == limit && reader.read(&mut [0]).is_ok_and(|read| read > 0);
    Some((plain, more))
}

/// The plain bytes of a body in these codings.
#[cfg(fuzzing)]
pub fn decoded(codings: &str, bytes: &[u8], limit: usize) -> Option<Vec<u8>> {
    decode(bytes, &codings.split(", ").collect::<Vec<_>>(), limit).map(|(plain, _)| plain)
}

fn undo<'a>(coding: &str, mut reader: Box<dyn Read + 'a>) -> Option<Box<dyn Read + 'a>> {
    Some(match coding.to_ascii_lowercase().as_str() {
        "gzip" | "x-gzip" => Box::new(flate2::read::MultiGzDecoder::new(reader)),
        "deflate" => {
            // By the book with a header of zlib's, and without one from some servers.
            let mut start = [0; 2];
            let read = reader.read(&mut start).ok()?;
            let (head, wrapped) = (start[..read].to_vec(), is_zlib(start));
            let all = std::io::Cursor::new(head).chain(reader);
            if wrapped {
                Box::new(flate2::read::ZlibDecoder::new(all))
            } else {
                Box::new(flate2::read::DeflateDecoder::new(all))
            }
        }
        "br" => Box::new(brotli_decompressor::Decompressor::new(reader, BUFFER)),
        "zstd" => {
            let mut decoder = zstd::Decoder::new(reader).ok()?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).ok()?;
            Box::new(decoder)
        }
        _ => return None,
    })
}

/// Whether a stream of deflate begins with a header (RFC 1950).
fn is_zlib([first, second]: [u8; 2]) -> bool {
    first & 0x0f == 8 && first >> 4 <= 7 && u16::from_be_bytes([first, second]).is_multiple_of(31)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::{Compression, write};
    use ringtap_exchange::Headers;

    use super::*;

    const TEXT: &[u8] = b"a body that says what it says, and says it again: a body that says what it says";

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut coder = write::GzEncoder::new(Vec::new(), Compression::default());
        coder.write_all(bytes).expect("memory");
        coder.finish().expect("memory")
    }

    fn zlib(bytes: &[u8]) -> Vec<u8> {
        let mut coder = write::ZlibEncoder::new(Vec::new(), Compression::default());
        coder.write_all(bytes).expect("memory");
        coder.finish().expect("memory")
    }

    fn raw(bytes: &[u8]) -> Vec<u8> {
        let mut coder = write::DeflateEncoder::new(Vec::new(), Compression::default());
        coder.write_all(bytes).expect("memory");
        coder.finish().expect("memory")
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        zstd::encode_all(bytes, 3).expect("memory")
    }

    /// What `brotli` makes of "a body".
    const BROTLI: [u8; 10] = [0x8b, 0x02, 0x80, b'a', b' ', b'b', b'o', b'd', b'y', 0x03];

    fn undone(coding: &str, bytes: Vec<u8>, limit: usize) -> Plain {
        let mut headers = Headers::default();
        headers.push("Content-Encoding", coding);
        let head = Head { headers, ..Head::default() };
        plain(&head, &mut Body { bytes, ..Body::default() }, limit)
    }

    #[test]
    fn each_coding_is_undone() {
        for (coding, bytes) in [
            ("gzip", gzip(TEXT)),
            ("X-GZIP", gzip(TEXT)),
            ("gzip", [gzip(&TEXT[..9]), gzip(&TEXT[9..])].concat()),
            ("deflate", zlib(TEXT)),
            ("deflate", raw(TEXT)),
            ("zstd", zstd(TEXT)),
            ("gzip, zstd", zstd(&gzip(TEXT))),
            ("identity, deflate ,gzip", gzip(&raw(TEXT))),
        ] {
            let done = undone(coding, bytes, 1000);
            assert_eq!((done.bytes.as_slice(), done.cut), (TEXT, false), "{coding}");
            assert!(done.decoded.is_some(), "{coding}");
        }
        assert_eq!(undone("br", BROTLI.to_vec(), 1000).bytes, b"a body");
    }

    #[test]
    fn what_is_not_coded_so_stays() {
        for (coding, bytes) in
            [("gzip", TEXT.to_vec()), ("mystery", gzip(TEXT)), ("gzip, gzip, gzip, gzip, gzip", gzip(TEXT))]
        {
            let done = undone(coding, bytes.clone(), 1000);
            assert_eq!((done.bytes, done.decoded), (bytes, None), "{coding}");
        }
    }

    /// Of a body that was cut, what its beginning comes to.
    #[test]
    fn a_beginning_comes_to_a_beginning() {
        let long: Vec<u8> = (0..40_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()).collect();
        for (coding, mut bytes) in [("gzip", gzip(&long)), ("deflate", raw(&long)), ("zstd", zstd(&long))] {
            bytes.truncate(bytes.len() * 9 / 10);
            let done = undone(coding, bytes, 1 << 20);
            assert!(long.starts_with(&done.bytes) && !done.bytes.is_empty(), "{coding}: {}", done.bytes.len());
        }
    }

    #[test]
    fn bombs_are_cut() {
        let zeros = vec![0; 32 << 20];
        for (coding, bytes) in [("gzip", gzip(&zeros)), ("zstd", zstd(&zeros)), ("gzip, gzip", gzip(&gzip(&zeros)))] {
            let done = undone(coding, bytes, 1 << 20);
            assert_eq!((done.bytes.len(), done.cut), (1 << 20, true), "{coding}");
        }
    }
}
