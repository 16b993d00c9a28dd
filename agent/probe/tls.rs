//! Where the TLS functions lie in a file.
//!
//! The exported functions of OpenSSL often begin with an instruction that a probe must single-step, which costs ten
//! to forty times as much as one that the kernel emulates. Behind them stands one internal function for each
//! direction, called by both `SSL_read` and `SSL_read_ex` (`SSL_write` and `SSL_write_ex`): where it can be found
//! beyond doubt, the probe goes there.

use std::{collections::BTreeMap, fs::File, path::Path};

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic};
use object::{Architecture, ObjectSection as _, ObjectSegment as _, ObjectSymbol as _, SymbolSection, read::ReadCache};

/// One probe: a program and where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Point {
    /// Name of the program in the capture object.
    pub program: &'static str,
    /// File offset.
    pub offset: u64,
}

/// The probes of a file, and how they were found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Points {
    /// Entry and return probes.
    pub points: Vec<Point>,
    /// The functions by name with their offset, for the log.
    pub functions: Vec<(&'static str, u64)>,
}

const FUNCTIONS: [&str; 7] =
    ["SSL_read", "SSL_read_ex", "SSL_write", "SSL_write_ex", "SSL_write_ex2", "SSL_do_handshake", "SSL_free"];

/// Bytes of a function that are searched for its calls.
const SEARCHED: u64 = 512;

/// Looks into an ELF file; `None` if it has no TLS functions.
///
/// # Errors
///
/// The file cannot be read or is no ELF file.
pub fn points(path: &Path) -> Result<Option<Points>, String> {
    let file = File::open(path).map_err(|e| e.to_string())?;
    let cache = ReadCache::new(file);
    let elf = object::File::parse(&cache).map_err(|e| e.to_string())?;
    let functions = symbols(&elf);
    if !functions.contains_key("SSL_read") || !functions.contains_key("SSL_write") {
        return Ok(None);
    }
    let mut found = Points::default();
    let direct = |name, program| functions.get(name).map(|address| (name, program, *address));
    let newer = functions.contains_key("SSL_write_ex2");
    let reads = [direct("SSL_read", "handle_read"), direct("SSL_read_ex", "handle_read_ex")];
    let writes = [
        direct("SSL_write", "handle_write"),
        direct("SSL_write_ex", "handle_write_ex"),
        direct("SSL_write_ex2", "handle_write_ex2"),
    ];
    let inner_write = if newer { "handle_write_ex2" } else { "handle_write_ex" };
    for (exported, inner) in
        [(&reads[..], ("ssl_read_internal", "handle_read_ex")), (&writes[..], ("ssl_write_internal", inner_write))]
    {
        let exported: Vec<_> = exported.iter().flatten().copied().collect();
        for (name, program, address) in cheaper(&elf, &exported, inner) {
            found.add(&elf, name, program, address, true);
        }
    }
    if let Some(address) = functions.get("SSL_do_handshake") {
        found.add(&elf, "SSL_do_handshake", "handle_handshake", *address, true);
    }
    if let Some(address) = functions.get("SSL_free") {
        found.add(&elf, "SSL_free", "handle_free", *address, false);
    }
    Ok(Some(found))
}

impl Points {
    fn add<'a>(
        &mut self,
        elf: &impl object::Object<'a>,
        name: &'static str,
        program: &'static str,
        address: u64,
        returns: bool,
    ) {
        let Some(offset) = file_offset(elf, address) else { return };
        self.functions.push((name, offset));
        // The return first: a call that is entered before its return is watched would stay open.
        if returns {
            self.points.push(Point { program: "handle_return", offset });
        }
        self.points.push(Point { program, offset });
    }
}

/// Addresses of the functions that the file defines.
fn symbols<'a>(elf: &impl object::Object<'a>) -> BTreeMap<&'static str, u64> {
    let mut found = BTreeMap::new();
    for symbol in elf.dynamic_symbols().chain(elf.symbols()) {
        let Ok(name) = symbol.name() else { continue };
        let Some(known) = FUNCTIONS.iter().find(|known| **known == name) else { continue };
        if symbol.address() != 0 && !matches!(symbol.section(), SymbolSection::Undefined) {
            found.entry(*known).or_insert_with(|| symbol.address());
        }
    }
    found
}

fn file_offset<'a>(elf: &impl object::Object<'a>, address: u64) -> Option<u64> {
    elf.segments().find_map(|segment| {
        let (offset, size) = segment.file_range();
        let inside = address.checked_sub(segment.address()).filter(|inside| *inside < size)?;
        Some(offset + inside)
    })
}

type Function = (&'static str, &'static str, u64);

/// The internal function instead of the exported ones, if that is cheaper and certain.
fn cheaper<'a>(
    elf: &impl object::Object<'a>,
    exported: &[Function],
    inner: (&'static str, &'static str),
) -> Vec<Function> {
    let expensive = exported.iter().any(|(_, _, address)| !is_emulated(elf, *address));
    let inside = if expensive && exported.len() > 1 { common_callee(elf, exported) } else { None };
    match inside {
        Some(address) if is_emulated(elf, address) => vec![(inner.0, inner.1, address)],
        _ => exported.to_vec(),
    }
}

/// Code from an address on, for x86-64 only: elsewhere the exported functions are taken.
fn code<'a>(elf: &impl object::Object<'a>, address: u64) -> Option<&'a [u8]> {
    if elf.architecture() != Architecture::X86_64 {
        return None;
    }
    let text = elf.sections().find(|s| (s.address()..s.address() + s.size()).contains(&address))?;
    let len = SEARCHED.min(text.address() + text.size() - address);
    text.data_range(address, len).ok()?
}

/// Whether the kernel emulates the first instruction instead of single-stepping it.
fn is_emulated<'a>(elf: &impl object::Object<'a>, address: u64) -> bool {
    let Some(code) = code(elf, address) else { return false };
    let first = Decoder::with_ip(64, code, address, DecoderOptions::NONE).decode();
    matches!(first.mnemonic(), Mnemonic::Push | Mnemonic::Nop)
}

/// The one function inside the file that all exported ones call first; calls through the PLT do not count.
fn common_callee<'a>(elf: &impl object::Object<'a>, exported: &[Function]) -> Option<u64> {
    let text = elf.section_by_name(".text")?;
    let inside = text.address()..text.address() + text.size();
    let mut common: Option<Vec<u64>> = None;
    for (_, _, address) in exported {
        let called: Vec<u64> = calls(elf, *address).into_iter().filter(|target| inside.contains(target)).collect();
        common = Some(match common {
            None => called,
            Some(common) => common.into_iter().filter(|target| called.contains(target)).collect(),
        });
    }
    match common?.as_slice() {
        [only] => Some(*only),
        _ => None,
    }
}

/// Direct calls and tail jumps of a function, each target once, up to where the next function begins.
fn calls<'a>(elf: &impl object::Object<'a>, address: u64) -> Vec<u64> {
    let Some(code) = code(elf, address) else { return Vec::new() };
    let mut decoder = Decoder::with_ip(64, code, address, DecoderOptions::NONE);
    let mut targets = Vec::new();
    let (mut instruction, mut furthest) = (Instruction::default(), address);
    while decoder.can_decode() {
        decoder.decode_out(&mut instruction);
        let target = instruction.near_branch_target();
        match instruction.flow_control() {
            FlowControl::ConditionalBranch => furthest = furthest.max(target),
            FlowControl::UnconditionalBranch if (address..address + SEARCHED).contains(&target) => {
                furthest = furthest.max(target);
            }
            FlowControl::Call | FlowControl::UnconditionalBranch => targets.push(target),
            _ => {}
        }
        let ends = matches!(instruction.flow_control(), FlowControl::Return | FlowControl::UnconditionalBranch);
        if instruction.is_invalid() || (ends && instruction.next_ip() > furthest) {
            break;
        }
    }
    targets.sort_unstable();
    targets.dedup();
    targets
}
