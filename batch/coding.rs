//! Content codings: what `Content-Encoding` says was done to a body, undone.

use std::io::{Read, copy};

use ringtap_exchange::{Body, Cut, Head};

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
    /// Why it is not whole, if decoding it has shown that.
    pub(crate) cut: Option<Cut>,
}

/// Takes the bytes out of a body, and undoes their codings. A body that was not kept to its end comes to its beginning;
/// one that is not what its header says stays as it is.
pub(crate) fn plain(head: &Head, body: &mut Body, limit: usize) -> Plain {
    let bytes = std::mem::take(&mut body.bytes);
    let codings: Vec<&str> = named(head.headers.get_all("content-encoding")).collect();
    if codings.is_empty() || bytes.is_empty() || codings.len() > CODINGS_MAX {
        return Plain { bytes, ..Plain::default() };
    }
    match decode(&bytes, &codings, limit) {
        Some(Decoded { plain, end }) => {
            let whole = body.complete && body.cut.is_none() && !body.holed;
            let cut = match end {
                End::Limit => Some(Cut::Limit),
                // Of a body that was not kept to its end this is said already.
                End::Broken if whole => Some(Cut::Coding),
                End::Broken | End::Whole => None,
            };
            Plain { bytes: plain, decoded: Some(codings.join(", ")), cut }
        }
        None => Plain { bytes, ..Plain::default() },
    }
}

/// The codings that header fields name.
fn named<'a>(fields: impl Iterator<Item = &'a str>) -> impl Iterator<Item = &'a str> {
    let codings = fields.flat_map(|value| value.split(',')).map(str::trim);
    codings.filter(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case("identity"))
}

/// The plain bytes. `None`: there are none to be had.
fn decode(bytes: &[u8], codings: &[&str], limit: usize) -> Option<Decoded> {
    let mut reader: Box<dyn Read + '_> = Box::new(bytes);
    for coding in codings.iter().rev() {
        // Each layer comes to no more than a body may: a small body can be a large one in between.
        reader = Box::new(undo(coding, reader)?.take(limit as u64 + 1));
    }
    let mut plain = Vec::new();
    // An error behind some bytes is the end of what was kept, or of what was sent.
    let broken = copy(&mut reader.by_ref().take(limit as u64), &mut plain).is_err();
    if plain.is_empty() {
        return None;
    }
    let more = plain.len() == limit && reader.read(&mut [0]).is_ok_and(|read| read > 0);
    Some(Decoded {
        plain,
        end: if more {
            End::Limit
        } else if broken {
            End::Broken
        } else {
            End::Whole
        },
    })
}

/// What came of a body in codings, and what ended it.
struct Decoded {
    plain: Vec<u8>,
    end: End,
}

/// Why there is no more of it.
enum End {
    Whole,
    /// It comes to more than a body may have.
    Limit,
    /// What follows is not in the coding, or the coding does not end.
    Broken,
}

/// The plain bytes of a body in these codings, as `Content-Encoding` has them, and no more than `limit` of them. `None`: it
/// is not in them.
#[must_use]
pub fn decoded(codings: &str, bytes: &[u8], limit: usize) -> Option<Vec<u8>> {
    let codings: Vec<&str> = named([codings].into_iter()).collect();
    let some = (1..=CODINGS_MAX).contains(&codings.len());
    some.then(|| decode(bytes, &codings, limit)).flatten().map(|decoded| decoded.plain)
}

fn undo<'a>(coding: &str, mut reader: Box<dyn Read + 'a>) -> Option<Box<dyn Read + 'a>> {
    Some(match coding.to_ascii_lowercase().as_str() {
        "gzip" | "x-gzip" => Box::new(flate2::read::MultiGzDecoder::new(reader)),
        "deflate" => {
            // By the book with a header of zlib's, and without one from some servers.
            let mut head = Vec::new();
            reader.by_ref().take(2).read_to_end(&mut head).ok()?;
            let wrapped = head.first_chunk().is_some_and(|start| is_zlib(*start));
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

    fn head(coding: &str) -> Head {
        let mut headers = Headers::default();
        headers.push("Content-Encoding", coding);
        Head { headers, ..Head::default() }
    }

    fn undone(coding: &str, bytes: Vec<u8>, limit: usize) -> Plain {
        plain(&head(coding), &mut Body { bytes, ..Body::default() }, limit)
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
            assert_eq!((done.bytes.as_slice(), done.cut), (TEXT, None), "{coding}");
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
            assert_eq!((done.bytes.len(), done.cut), (1 << 20, Some(Cut::Limit)), "{coding}");
        }
    }

    /// A coding that breaks off although the body came whole says so; of a body that did not, that is said elsewhere.
    #[test]
    fn broken_codings_are_told() {
        let long: Vec<u8> = (0..40_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let coded = gzip(&long);
        let mut wrong = coded.clone();
        let crc = wrong.len() - 6;
        wrong[crc] ^= 1;
        for (bytes, whole, cut) in [
            (&coded[..coded.len() / 2], true, Some(Cut::Coding)),
            (&coded[..coded.len() / 2], false, None),
            (&wrong[..], true, Some(Cut::Coding)),
            (&coded[..], true, None),
        ] {
            let mut body = Body { bytes: bytes.to_vec(), size: bytes.len() as u64, complete: whole, ..Body::default() };
            let done = plain(&head("gzip"), &mut body, 1 << 20);
            assert_eq!(done.cut, cut, "{} bytes, {whole}", bytes.len());
            assert!(long.starts_with(&done.bytes) && !done.bytes.is_empty());
        }
    }

    /// Blocks that come to nothing, many times over, in a layer that nobody sees.
    #[test]
    fn bombs_between_the_layers_are_cut() {
        let nothing: Vec<u8> = [0, 0, 0, 0xff, 0xff].repeat(40_000_000 / 5);
        let coded = gzip(&gzip(&nothing));
        assert!(coded.len() < 4096, "{}", coded.len());
        let begun = std::time::Instant::now();
        let mut body = Body { size: coded.len() as u64, bytes: coded, complete: true, ..Body::default() };
        assert_eq!(plain(&head("deflate, gzip, gzip"), &mut body, 64 << 10).decoded, None);
        assert!(begun.elapsed() < std::time::Duration::from_secs(2), "{:?}", begun.elapsed());
    }
}
