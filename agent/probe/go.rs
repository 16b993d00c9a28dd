//! Go's `crypto/tls`, found without symbols: by the table of functions that every Go program carries for its own
//! tracebacks (`.gopclntab`).
//!
//! Read are the tables of Go 1.17 and newer on x86-64. What they say is believed only where the code agrees: each
//! function has to begin with the check of the goroutine's stack, in the convention of Go 1.17 and newer.

use iced_x86::{Code, Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};
use object::{Architecture, Object, ObjectSection as _};

use super::{
    cost::Stop,
    elf::{self, Elf},
    tls::Points,
};

/// The program at each return instruction.
const RETURN: &str = "handle_go_return";
/// Functions, and the program that follows a call of each.
const FUNCTIONS: [(&str, &str); 3] = [
    ("crypto/tls.(*Conn).Read", "handle_go_read"),
    ("crypto/tls.(*Conn).Write", "handle_go_write"),
    ("crypto/tls.(*Conn).handshakeContext", "handle_go_handshake"),
];
const TABLES: [&str; 2] = [".gopclntab", ".data.rel.ro.gopclntab"];
/// Bytes of the longest function that is looked through.
const CODE_MAX: u64 = 64 << 10;

/// All programs of this.
pub fn programs() -> impl Iterator<Item = &'static str> {
    FUNCTIONS.iter().map(|(_, program)| *program).chain([RETURN])
}

/// The probes of a Go program. `None`: it is none, or has no TLS.
///
/// # Errors
///
/// It has TLS whose functions cannot be found beyond doubt.
pub fn points(elf: &Elf<'_>) -> Result<Option<Points>, String> {
    let Some(section) = TABLES.iter().find_map(|name| elf.section_by_name(name)) else { return Ok(None) };
    let bytes = section.data().map_err(|error| error.to_string())?;
    let Some(first) = find_name(bytes, FUNCTIONS[0].0) else { return Ok(None) };
    if elf.architecture() != Architecture::X86_64 {
        return Err("Go's TLS is read on x86-64 only".to_owned());
    }
    let table = Table::of(bytes).ok_or("its table of functions is of a kind that is not known (Go before 1.16?)")?;
    let text = elf.section_by_name(".text").ok_or("it has no section .text")?.address();
    let start = table.start.unwrap_or(text);
    let mut found = Points {
        library: "gotls",
        how: "table of functions",
        programs: vec![(RETURN, Vec::new())],
        cookie: 0,
        functions: Vec::new(),
        stop: Stop::SteppedTwice,
    };
    for (name, program) in FUNCTIONS {
        let at = if name == FUNCTIONS[0].0 { Some(first) } else { find_name(bytes, name) };
        let range = at.and_then(|at| table.function(at)).ok_or_else(|| format!("{name} is not in its table"))?;
        let len = range.end - range.start;
        let address = start.checked_add(range.start).ok_or_else(|| format!("{name} lies beyond all addresses"))?;
        let code =
            elf::code(elf, address, len.min(CODE_MAX)).ok_or_else(|| format!("{name} lies outside of its code"))?;
        let returns = returns(code, address).ok_or_else(|| format!("{name} does not begin as Go's functions do"))?;
        let offset = |address| elf::file_offset(elf, address).ok_or_else(|| format!("{name} is not in the file"));
        found.functions.push(name);
        for at in returns {
            found.add(RETURN, offset(at)?);
        }
        found.add(program, offset(address)?);
    }
    Ok(Some(found))
}

/// Where a name lies in the table.
fn find_name(table: &[u8], name: &str) -> Option<usize> {
    let whole = [b"\0", name.as_bytes(), b"\0"].concat();
    memchr::memmem::find(table, &whole).map(|at| at + 1)
}

/// The table's head: where its parts begin.
struct Table<'a> {
    bytes: &'a [u8],
    /// What the places of functions are counted from; `None`: the beginning of the code (Go 1.26 and newer).
    start: Option<u64>,
    functions: usize,
    names: usize,
    entries: usize,
    /// Bytes of a place: 8 where it is an address (before Go 1.18), 4 where it is counted from `start`.
    width: usize,
}

impl<'a> Table<'a> {
    /// `None`: of another kind.
    fn of(bytes: &'a [u8]) -> Option<Self> {
        let word = |n: usize| number_at(bytes, 8 + 8 * n, 8);
        let place = |n: usize| usize::try_from(word(n)?).ok().filter(|at| *at < bytes.len());
        let functions = place(0)?;
        // Pointers of eight bytes.
        bytes.get(7).filter(|size| **size == 8)?;
        match number_at(bytes, 0, 4)? {
            // 1.16 and 1.17.
            0xffff_fffa => {
                Some(Self { bytes, start: Some(0), functions, names: place(2)?, entries: place(6)?, width: 8 })
            }
            // 1.18, and 1.20 with its successors.
            0xffff_fff0 | 0xffff_fff1 => {
                let start = Some(word(2)?).filter(|start| *start > 0);
                Some(Self { bytes, start, functions, names: place(3)?, entries: place(7)?, width: 4 })
            }
            _ => None,
        }
    }

    /// Where the function with the name at this place lies.
    fn function(&self, name: usize) -> Option<std::ops::Range<u64>> {
        let name = u64::try_from(name.checked_sub(self.names)?).ok()?;
        let (entries, width) = (self.bytes.get(self.entries..)?, self.width);
        let pair = |n: usize| {
            let at = n.checked_mul(2 * width)?;
            Some((number_at(entries, at, width)?, usize::try_from(number_at(entries, at + width, width)?).ok()?))
        };
        // Each function's own record begins with its place and that of its name.
        let name_of = |record: usize| number_at(entries, record.checked_add(width)?, 4);
        let n = (0..self.functions).find(|n| pair(*n).and_then(|(_, record)| name_of(record)) == Some(name))?;
        let ((start, record), (end, _)) = (pair(n)?, pair(n + 1)?);
        let agrees = number_at(entries, record, width) == Some(start);
        (agrees && start < end).then_some(start..end)
    }
}

/// A little-endian number of 4 or 8 bytes.
fn number_at(bytes: &[u8], at: usize, width: usize) -> Option<u64> {
    let bytes = bytes.get(at..)?.get(..width)?;
    Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

/// Addresses of the return instructions. `None`: the code does not begin as Go's does, or is none.
fn returns(code: &[u8], address: u64) -> Option<Vec<u64>> {
    let mut decoder = Decoder::with_ip(64, code, address, DecoderOptions::NONE);
    let (mut instruction, mut found, mut checked) = (Instruction::default(), Vec::new(), false);
    for n in 0.. {
        if !decoder.can_decode() {
            break;
        }
        decoder.decode_out(&mut instruction);
        checked |= n < 2 && is_stack_check(&instruction);
        if instruction.is_invalid() || (n >= 2 && !checked) {
            return None;
        }
        if instruction.mnemonic() == Mnemonic::Ret {
            found.push(instruction.ip());
        }
    }
    (checked && !found.is_empty()).then_some(found)
}

/// The stack pointer, or how far it will go, against the limit that the goroutine's description holds.
fn is_stack_check(instruction: &Instruction) -> bool {
    matches!(instruction.code(), Code::Cmp_r64_rm64)
        && matches!(instruction.op0_register(), Register::RSP | Register::R12)
        && instruction.op1_kind() == OpKind::Memory
        && instruction.memory_base() == Register::R14
        && instruction.memory_displacement64() == 0x10
}
