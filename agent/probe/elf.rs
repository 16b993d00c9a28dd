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

/// Whether the kernel emulates the first instruction instead of single-stepping it.
pub fn is_emulated<'a>(elf: &impl Object<'a>, address: u64) -> bool {
    let Some(code) = code(elf, address, SEARCHED) else { return false };
    let first = Decoder::with_ip(64, code, address, DecoderOptions::NONE).decode();
    matches!(first.mnemonic(), Mnemonic::Push | Mnemonic::Nop)
}

/// The one function inside the file that all of these call first; calls through the PLT do not count.
pub fn common_callee<'a>(elf: &impl Object<'a>, callers: impl Iterator<Item = u64>) -> Option<u64> {
    let text = elf.section_by_name(".text")?;
    let inside = text.address()..text.address() + text.size();
    let mut common: Option<Vec<u64>> = None;
    for address in callers {
        let called: Vec<u64> = calls(elf, address).into_iter().filter(|target| inside.contains(target)).collect();
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
