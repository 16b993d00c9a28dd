//! Protobuf, written from its end to its beginning: when a length is to be written, what it counts is already there. So
//! one pass is enough, and nothing is kept of a record but its bytes.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use prost::{
    bytes::BufMut as _,
    encoding::{encode_varint, encoded_len_varint},
};

/// Buffers that are kept for the next requests, and bytes of the largest one of them.
const KEPT: usize = 4;
const KEPT_BYTES: usize = 4 << 20;
/// Bytes of a new buffer.
const FIRST_BYTES: usize = 64 << 10;

/// Buffers between two requests: what was written once need not be had from the system again.
#[derive(Debug, Default)]
pub(super) struct Buffers(Mutex<Vec<Vec<u8>>>);

impl Buffers {
    fn take(&self) -> Vec<u8> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        kept.unwrap_or_else(|| vec![0; FIRST_BYTES])
    }

    fn give(&self, buffer: Vec<u8>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT && buffer.len() <= KEPT_BYTES {
            kept.push(buffer);
        }
    }
}

/// A written buffer, which goes back when the last who reads it is done.
struct Lent {
    bytes: Vec<u8>,
    at: usize,
    home: Arc<Buffers>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[self.at..]
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.home.give(std::mem::take(&mut self.bytes));
    }
}

/// Writes from the end. What is written last stands first.
pub(super) struct Backward {
    bytes: Vec<u8>,
    /// Where the first written byte is.
    at: usize,
    home: Arc<Buffers>,
}

impl Backward {
    pub(super) fn new(home: &Arc<Buffers>) -> Self {
        let bytes = home.take();
        Self { at: bytes.len(), bytes, home: home.clone() }
    }

    /// Bytes so far.
    pub(super) fn written(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// Takes back what was written since there were `written` bytes.
    pub(super) fn back_to(&mut self, written: usize) {
        self.at = self.bytes.len() - written;
    }

    pub(super) fn finish(self) -> Bytes {
        Bytes::from_owner(Lent { bytes: self.bytes, at: self.at, home: self.home })
    }

    fn slot(&mut self, len: usize) -> &mut [u8] {
        if self.at < len {
            self.grow(len);
        }
        let end = self.at;
        self.at -= len;
        &mut self.bytes[self.at..end]
    }

    #[cold]
    fn grow(&mut self, len: usize) {
        let written = self.written();
        let mut larger = vec![0; (self.bytes.len() * 2).max(written + len)];
        let at = larger.len() - written;
        larger[at..].copy_from_slice(&self.bytes[self.at..]);
        (self.bytes, self.at) = (larger, at);
    }

    pub(super) fn put(&mut self, bytes: &[u8]) {
        self.slot(bytes.len()).copy_from_slice(bytes);
    }

    pub(super) fn byte(&mut self, byte: u8) {
        self.slot(1)[0] = byte;
    }

    pub(super) fn varint(&mut self, n: u64) {
        match u8::try_from(n) {
            Ok(byte) if byte < 0x80 => self.byte(byte),
            _ => {
                let mut slot = self.slot(encoded_len_varint(n));
                encode_varint(n, &mut slot);
            }
        }
    }

    pub(super) fn fixed64(&mut self, tag: u8, n: u64) {
        self.put(&n.to_le_bytes());
        self.byte(tag);
    }

    pub(super) fn fixed32(&mut self, tag: u8, n: u32) {
        self.put(&n.to_le_bytes());
        self.byte(tag);
    }

    /// What was written since there were `written` bytes becomes a field.
    pub(super) fn close(&mut self, tag: u8, written: usize) {
        self.varint((self.written() - written) as u64);
        self.byte(tag);
    }

    /// A field of bytes.
    pub(super) fn field(&mut self, tag: u8, bytes: &[u8]) {
        self.put(bytes);
        self.varint(bytes.len() as u64);
        self.byte(tag);
    }

    /// The same as `AnyValue` calls a whole number.
    pub(super) fn int_value(&mut self, n: i64) {
        self.varint(n.cast_unsigned());
        self.byte(tag::INT);
    }

    /// Decimal digits.
    pub(super) fn decimal(&mut self, n: i64) {
        let mut rest = n.unsigned_abs();
        loop {
            self.byte(b'0' + u8::try_from(rest % 10).unwrap_or_default());
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        if n < 0 {
            self.byte(b'-');
        }
    }

    /// The `KeyValue` whose value was written since there were `written` bytes; `key` comes from [`key`].
    pub(super) fn close_value(&mut self, tag: u8, key: &[u8], written: usize) {
        self.varint((self.written() - written) as u64);
        self.put(key);
        self.close(tag, written);
    }

    /// A `KeyValue` with a text.
    pub(super) fn text(&mut self, tag: u8, key: &[u8], text: &[u8]) {
        let written = self.written();
        self.field(tag::TEXT, text);
        self.close_value(tag, key, written);
    }

    /// The five bytes before a message of gRPC that is not compressed.
    pub(super) fn frame(&mut self) {
        self.put(&frame(false, self.written()));
    }
}

/// The five bytes before a message of gRPC.
pub(super) fn frame(compressed: bool, len: usize) -> [u8; FRAME] {
    let [a, b, c, d] = u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes();
    [u8::from(compressed), a, b, c, d]
}

/// Bytes before a message of gRPC.
pub(super) const FRAME: usize = 5;

/// The beginning of a `KeyValue`: its key, and the tag of its value.
pub(super) fn key(name: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(name.len() + 4);
    bytes.push(tag::KEY);
    encode_varint(name.len() as u64, &mut bytes);
    bytes.put_slice(name.as_bytes());
    bytes.push(tag::VALUE);
    bytes
}

/// Field numbers with their wire types.
pub(super) mod tag {
    /// `ExportLogsServiceRequest.resource_logs`.
    pub(crate) const RESOURCE_LOGS: u8 = 0x0a;
    /// `ResourceLogs`.
    pub(crate) const RESOURCE: u8 = 0x0a;
    pub(crate) const SCOPE_LOGS: u8 = 0x12;
    /// `ScopeLogs`.
    pub(crate) const SCOPE: u8 = 0x0a;
    pub(crate) const RECORD: u8 = 0x12;
    /// `LogRecord`.
    pub(crate) const TIME: u8 = 0x09;
    pub(crate) const BODY: u8 = 0x2a;
    pub(crate) const ATTRIBUTE: u8 = 0x32;
    pub(crate) const FLAGS: u8 = 0x45;
    pub(crate) const TRACE: u8 = 0x4a;
    pub(crate) const SPAN: u8 = 0x52;
    pub(crate) const OBSERVED: u8 = 0x59;
    /// `KeyValue`.
    pub(crate) const KEY: u8 = 0x0a;
    pub(crate) const VALUE: u8 = 0x12;
    /// `AnyValue`.
    pub(crate) const TEXT: u8 = 0x0a;
    pub(crate) const BOOL: u8 = 0x10;
    pub(crate) const INT: u8 = 0x18;
    pub(crate) const DOUBLE: u8 = 0x21;
    pub(crate) const LIST: u8 = 0x2a;
    pub(crate) const MAP: u8 = 0x32;
    /// `ArrayValue.values` and `KeyValueList.values`.
    pub(crate) const ITEM: u8 = 0x0a;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_grow_and_come_back() {
        let home = Arc::default();
        let mut out = Backward::new(&home);
        for n in 0..FIRST_BYTES {
            out.put(&n.to_le_bytes());
        }
        out.decimal(-120);
        let bytes = out.finish();
        assert_eq!(bytes.len(), FIRST_BYTES * 8 + 4);
        assert_eq!(&bytes[..12], b"-120\xff\xff\0\0\0\0\0\0");
        assert_eq!(&bytes[bytes.len() - 8..], &[0; 8]);
        let part = bytes.slice(1..4);
        drop(bytes);
        assert_eq!(home.0.lock().expect("whole").len(), 0, "a part is still read");
        drop(part);
        assert_eq!(home.0.lock().expect("whole").len(), 1);
    }
}
