//! What an ELF file says of its functions, and what their code says.

use std::collections::HashMap;

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic};
use memchr::memchr;
use object::{
    Architecture, Object, ObjectSection as _, ObjectSegment as _,
    read::{
        ReadRef as _,
        elf::{ElfFile, FileHeader, Sym as _},
    },
};

use super::bounded::Bounded;

/// Bytes of a function that are searched for its calls.
const SEARCHED: u64 = 512;

/// An ELF file of which as much is read as is asked for: a process may be waiting to use it.
pub type Elf<'a> = object::File<'a, &'a Bounded>;

/// Addresses of those of the functions that the file defines.
pub fn symbols(elf: &Elf<'_>, wanted: impl Fn(&str) -> bool) -> HashMap<String, u64> {
    match elf {
        Elf::Elf32(elf) => defined(elf, wanted),
        Elf::Elf64(elf) => defined(elf, wanted),
        _ => HashMap::new(),
    }
}

/// Names are looked up in the table of names as a whole: to read each by itself takes two system calls.
fn defined<'a, H: FileHeader>(
    elf: &ElfFile<'a, H, &'a Bounded>,
    wanted: impl Fn(&str) -> bool,
) -> HashMap<String, u64> {
    let (endian, mut found) = (elf.endian(), HashMap::new());
    for table in [elf.elf_dynamic_symbol_table(), elf.elf_symbol_table()] {
        let Ok(names) = elf.section_by_index(table.string_section()).and_then(|section| section.data()) else {
            continue;
        };
        for symbol in table.symbols() {
            let address: u64 = symbol.st_value(endian).into();
            let name = names.get(symbol.st_name(endian) as usize..).and_then(|rest| rest.get(..memchr(0, rest)?));
            let name = name.filter(|_| address != 0 && !symbol.is_undefined(endian));
            if let Some(name) = name.and_then(|name| str::from_utf8(name).ok()).filter(|name| wanted(name)) {
                found.entry(name.to_owned()).or_insert(address);
            }
        }
    }
    found
}

/// Where an address of the program lies in its file.
pub fn file_offset<'a>(elf: &impl Object<'a>, address: u64) -> Option<u64> {
    elf.segments().find_map(|segment| {
        let (offset, size) = segment.file_range();
        let inside = address.checked_sub(segment.address()).filter(|inside| *inside < size)?;
        offset.checked_add(inside)
    })
}

/// Code from an address on, as much as there is up to a length; for x86-64 only.
pub fn code<'a>(elf: &Elf<'a>, address: u64, len: u64) -> Option<&'a [u8]> {
    let bytes = match elf {
        Elf::Elf64(elf) if elf.architecture() == Architecture::X86_64 => elf.data(),
        _ => return None,
    };
    let (start, left) = elf.sections().find_map(|section| {
        let inside = address.checked_sub(section.address()).filter(|inside| *inside < section.size())?;
        Some((section.file_range()?.0.checked_add(inside)?, section.size() - inside))
    })?;
    // Only this: a section can have a hundred million bytes.
    bytes.read_bytes_at(start, len.min(left)).ok()
}

/// Where the probe of a function goes: nothing has happened there yet. It stands behind the mark that says that calls may
/// land here, which the kernel would single-step, and behind padding of the first instruction by a prefix that means
/// nothing, which the kernel refuses: a breakpoint takes it as well.
pub fn entry(elf: &Elf<'_>, address: u64) -> u64 {
    const PADDING: u8 = 0x2e;
    let Some(code) = code(elf, address, SEARCHED) else { return address };
    let first = Decoder::with_ip(64, code, address, DecoderOptions::NONE).decode();
    let mark = if first.mnemonic() == Mnemonic::Endbr64 { first.len() } else { 0 };
    let padding = code.iter().skip(mark).take_while(|byte| **byte == PADDING).count();
    address.saturating_add((mark + padding) as u64)
}

/// Whether the kernel emulates the first instruction instead of single-stepping it.
pub fn is_emulated(elf: &Elf<'_>, address: u64) -> bool {
    let Some(code) = code(elf, address, SEARCHED) else { return false };
    let first = Decoder::with_ip(64, code, address, DecoderOptions::NONE).decode();
    matches!(first.mnemonic(), Mnemonic::Push | Mnemonic::Nop)
}

/// Functions inside of the file that a function calls; calls through the PLT do not count.
pub fn calls_inside(elf: &Elf<'_>, address: u64) -> Vec<u64> {
    let Some(text) = elf.section_by_name(".text") else { return Vec::new() };
    let inside = text.address()..text.address().saturating_add(text.size());
    calls(elf, address).into_iter().filter(|target| inside.contains(target)).collect()
}

/// Direct calls and tail jumps of a function, each target once, up to where the next function begins.
fn calls(elf: &Elf<'_>, address: u64) -> Vec<u64> {
    let Some(code) = code(elf, address, SEARCHED) else { return Vec::new() };
    let mut decoder = Decoder::with_ip(64, code, address, DecoderOptions::NONE);
    let mut targets = Vec::new();
    let (mut instruction, mut furthest) = (Instruction::default(), address);
    while decoder.can_decode() {
        decoder.decode_out(&mut instruction);
        let target = instruction.near_branch_target();
        match instruction.flow_control() {
            FlowControl::ConditionalBranch => furthest = furthest.max(target),
            FlowControl::UnconditionalBranch if (address..address.saturating_add(SEARCHED)).contains(&target) => {
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
