//! Header blocks: their frames, and what their fields say.

use super::hpack::{Decoder, Field, Malformed};
use crate::{
    exchange::{Head, Version},
    http1::text,
};

/// A block whose frames are not all there.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) stream: u32,
    /// The stream that a push promises, whose request this is.
    pub(super) promised: Option<u32>,
    pub(super) bytes: Vec<u8>,
    /// It ends its stream's half.
    pub(super) end: bool,
}

impl Block {
    pub(super) fn kept_bytes(&self) -> usize {
        self.bytes.capacity()
    }
}

/// The fields of a block.
#[derive(Debug, Default)]
pub(super) struct Fields {
    pub(super) method: Option<String>,
    pub(super) target: Option<String>,
    pub(super) scheme: Option<String>,
    pub(super) authority: Option<String>,
    /// What an extended CONNECT asks for.
    pub(super) protocol: Option<String>,
    pub(super) status: Option<u16>,
    pub(super) head: Head,
    /// Fields that were told before anybody looked.
    pub(super) unknown: usize,
    /// Fields that HTTP/2 forbids, because they say other things to those who forward them.
    pub(super) odd: bool,
    /// Fields were left out: a head has only so much room.
    pub(super) cut: bool,
}

impl Fields {
    /// Decodes a block of so many bytes on the wire; of its fields as many are kept as `limit` allows.
    pub(super) fn decode(table: &mut Decoder, block: &[u8], limit: usize) -> Result<Self, Malformed> {
        let mut fields = Self { head: Head { version: Version::Http2, ..Head::default() }, ..Self::default() };
        let mut room = limit;
        table.decode(block, |field| match field {
            Field::Unknown => fields.unknown += 1,
            Field::Known(name, value) => match room.checked_sub(name.len() + value.len()) {
                Some(left) => {
                    room = left;
                    fields.push(name, value);
                }
                None => fields.cut = true,
            },
        })?;
        Ok(fields)
    }

    fn push(&mut self, name: &[u8], value: &[u8]) {
        self.odd |= value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0))
            || matches!(name, b"transfer-encoding" | b"connection" | b"upgrade")
            || (name == b":method" && self.method.is_some())
            || (name == b":path" && self.target.is_some())
            || (name == b":authority" && self.authority.is_some());
        let value = text(value);
        match name {
            b":method" => self.method = Some(value.into_owned()),
            b":path" => self.target = Some(value.into_owned()),
            b":scheme" => self.scheme = Some(value.into_owned()),
            b":authority" => self.authority = Some(value.into_owned()),
            b":protocol" => self.protocol = Some(value.into_owned()),
            b":status" => self.status = value.parse().ok(),
            // One cookie can come in crumbs (RFC 9113, section 8.2.3).
            b"cookie" if self.head.headers.extend_last("cookie", "; ") => {
                self.head.headers.extend_last("cookie", &value);
            }
            _ => self.head.headers.push(&text(name), &value),
        }
    }
}
