//! What an ELF file says of its functions, and what their code says.

use std::collections::HashMap;

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic};
use object::{Architecture, Object, ObjectSection as _, ObjectSegment as _, ObjectSymbol as _, SymbolSection};

/// Bytes of a function that are searched for its calls.
const SEARCHED: u64 = 512;

/// Addresses of those of the functions that the file defines.
pub fn symbols<'a>(elf: &impl Object<'a>, wanted: impl Fn(&str) -> bool) -> HashMap<String, u64> {
    let mut found = HashMap::new();
    for symbol in elf.dynamic_symbols().chain(elf.symbols()) {
        let Ok(name) = symbol.name() else { continue };
        if symbol.address() != 0 && !matches!(symbol.section(), SymbolSection::Undefined) && wanted(name) {
            found.entry(name.to_owned()).or_insert_with(|| symbol.address());
        }
    }
    found
}

/// Where an address of the program lies in its file.
pub fn file_offset<'a>(elf: &impl Object<'a>, address: u64) -> Option<u64> {
    elf.segments().find_map(|segment| {
        let (offset, size) = segment.file_range();
        let inside = address.checked_sub(segment.address()).filter(|inside| *inside < size)?;
        Some(offset + inside)
    })
}

/// Code from an address on, as much as there is up to a length; for x86-64 only.
pub fn code<'a>(elf: &impl Object<'a>, address: u64, len: u64) -> Option<&'a [u8]> {
    if elf.architecture() != Architecture::X86_64 {
        return None;
    }
    let text = elf.sections().find(|s| (s.address()..s.address() + s.size()).contains(&address))?;
    text.data_range(address, len.min(text.address() + text.size() - address)).ok()?
}

/// Where the probe of a function goes: nothing has happened there yet. It stands behind the mark that says that calls may
/// land here, which the kernel would single-step, and behind padding of the first instruction by a prefix that means
/// nothing, which the kernel refuses: a breakpoint takes it as well.
pub fn entry<'a>(elf: &impl Object<'a>, address: u64) -> u64 {
    const PADDING: u8 = 0x2e;
    let Some(code) = code(elf, address, SEARCHED) else { return address };
    let first = Decoder::with_ip(64, code, address, DecoderOptions::NONE).decode();
    let mark = if first.mnemonic() == Mnemonic::Endbr64 { first.len() } else { 0 };
    let padding = code.iter().skip(mark).take_while(|byte| **byte == PADDING).count();
    address + (mark + padding) as u64
}

/// Whether the kernel emulates the first instruction instead of single-stepping it.
pub fn is_emulated<'a>(elf: &impl Object<'a>, address: u64) -> bool {
    let Some(code) = code(elf, address, SEARCHED) else { return false };
    let first = Decoder::with_ip(64, code, address, DecoderOptions::NONE).decode();
    matches!(first.mnemonic(), Mnemonic::Push | Mnemonic::Nop)
}

/// Functions inside of the file that a function calls; calls through the PLT do not count.
pub fn calls_inside<'a>(elf: &impl Object<'a>, address: u64) -> Vec<u64> {
    let Some(text) = elf.section_by_name(".text") else { return Vec::new() };
    let inside = text.address()..text.address() + text.size();
    calls(elf, address).into_iter().filter(|target| inside.contains(target)).collect()
}

/// Direct calls and tail jumps of a function, each target once, up to where the next function begins.
fn calls<'a>(elf: &impl object::Object<'a>, address: u64) -> Vec<u64> {
    let Some(code) = code(elf, address, SEARCHED) else { return Vec::new() };
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
