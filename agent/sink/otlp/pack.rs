//! Compression of requests.

use std::io::{self, Write as _};

use bytes::Bytes;
use flate2::{Compression as Level, write::GzEncoder};

use super::wire::{FRAME, frame};
use crate::config::written::Compression;

/// Level of zstd. Requests repeat themselves so much that higher ones win little and cost much.
const ZSTD_LEVEL: i32 = 1;

/// The name that both `Content-Encoding` and `grpc-encoding` have for it.
pub(super) fn name(compression: Compression) -> Option<&'static str> {
    match compression {
        Compression::None => None,
        Compression::Gzip => Some("gzip"),
        Compression::Zstd => Some("zstd"),
    }
}

/// A message behind the five bytes of gRPC, compressed, behind five bytes of its own.
pub(super) fn pack(compression: Compression, framed: Bytes) -> io::Result<Bytes> {
    let message = &framed[FRAME..];
    let mut packed = match compression {
        Compression::None => return Ok(framed),
        Compression::Gzip => {
            let mut packed = Vec::with_capacity(FRAME + message.len() / 4);
            packed.extend([0; FRAME]);
            let mut encoder = GzEncoder::new(packed, Level::fast());
            encoder.write_all(message)?;
            encoder.finish()?
        }
        Compression::Zstd => {
            let mut packed = vec![0; FRAME + zstd::zstd_safe::compress_bound(message.len())];
            let len = zstd::bulk::compress_to_buffer(message, &mut packed[FRAME..], ZSTD_LEVEL)?;
            packed.truncate(FRAME + len);
            packed
        }
    };
    let head = frame(true, packed.len() - FRAME);
    packed[..FRAME].copy_from_slice(&head);
    Ok(packed.into())
}
