//! Header blocks of HTTP/2 (RFC 7541), also behind blocks that were not seen.
//!
//! A decoder that has missed blocks does not know its table's older entries. It says so for each field that needs one,
//! and learns the table anew from what is added to it.

use self::table::{Found, Table};

mod huffman;
mod table;

/// What a block says of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field<'a> {
    /// Name and value.
    Known(&'a [u8], &'a [u8]),
    /// Its name, or both, were told in a block that was not seen.
    Unknown,
}

/// The block is not one.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed;

/// One direction's table.
#[derive(Debug, Default)]
pub struct Decoder {
    table: Table,
    name: Vec<u8>,
    value: Vec<u8>,
}

/// How a field is written, by the first bits of its first byte.
enum Form {
    Indexed,
    /// Added to the table.
    Added,
    Size,
    /// Not added to the table.
    Plain,
}

impl Decoder {
    /// A block was missed.
    pub fn forget(&mut self) {
        self.table.forget();
    }

    /// Bytes of memory.
    pub fn kept_bytes(&self) -> usize {
        self.table.kept_bytes() + self.name.capacity() + self.value.capacity()
    }

    /// Decodes a whole block, and hands out its fields in order.
    ///
    /// # Errors
    ///
    /// The block is not one; the table holds what came before the fault.
    pub fn decode(&mut self, block: &[u8], mut field: impl FnMut(Field<'_>)) -> Result<(), Malformed> {
        let mut block = block;
        while let Some(first) = block.first() {
            let (form, bits) = match first.leading_zeros() {
                0 => (Form::Indexed, 7),
                1 => (Form::Added, 6),
                2 => (Form::Size, 5),
                _ => (Form::Plain, 4),
            };
            let index = integer(&mut block, bits)?;
            match form {
                Form::Indexed => match self.table.get(index) {
                    Found::Field(name, value) => field(Field::Known(name, value)),
                    Found::Unknown => field(Field::Unknown),
                    Found::Nothing => return Err(Malformed),
                },
                Form::Size => self.table.resize(index),
                Form::Added | Form::Plain => {
                    self.literal(&mut block, index, matches!(form, Form::Added), &mut field)?;
                }
            }
        }
        Ok(())
    }

    fn literal(
        &mut self,
        block: &mut &[u8],
        index: usize,
        add: bool,
        field: &mut impl FnMut(Field<'_>),
    ) -> Result<(), Malformed> {
        let Self { table, name: name_buffer, value: value_buffer } = self;
        let name = if index == 0 {
            Some(string(block, name_buffer)?)
        } else {
            match table.get(index) {
                Found::Field(name, _) => {
                    name_buffer.clear();
                    name_buffer.extend_from_slice(name);
                    Some(name_buffer.as_slice())
                }
                Found::Unknown => None,
                Found::Nothing => return Err(Malformed),
            }
        };
        let value = string(block, value_buffer)?;
        match name {
            Some(name) => field(Field::Known(name, value)),
            None => field(Field::Unknown),
        }
        if add {
            table.add(name, value);
        }
        Ok(())
    }
}

/// A number whose beginning lies in the lower `bits` of the first byte.
fn integer(block: &mut &[u8], bits: u32) -> Result<usize, Malformed> {
    let (first, mut rest) = block.split_first().ok_or(Malformed)?;
    let mask = (1_usize << bits) - 1;
    let mut value = usize::from(*first) & mask;
    if value == mask {
        // Five more bytes hold any number that can be of use.
        for shift in [0, 7, 14, 21, 28] {
            let (byte, behind) = rest.split_first().ok_or(Malformed)?;
            rest = behind;
            value += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                *block = rest;
                return Ok(value);
            }
        }
        return Err(Malformed);
    }
    *block = rest;
    Ok(value)
}

/// A string as it lies in the block, or decoded into `buffer`.
fn string<'a, 'b: 'a>(block: &mut &'b [u8], buffer: &'a mut Vec<u8>) -> Result<&'a [u8], Malformed> {
    let coded = block.first().is_some_and(|first| first & 0x80 != 0);
    let len = integer(block, 7)?;
    let (text, rest) = block.split_at_checked(len).ok_or(Malformed)?;
    *block = rest;
    if !coded {
        return Ok(text);
    }
    buffer.clear();
    if huffman::decode(text, buffer) { Ok(buffer) } else { Err(Malformed) }
}

#[cfg(test)]
mod tests;
