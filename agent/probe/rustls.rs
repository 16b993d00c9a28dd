//! Rustls, in a program or module that has its symbols.
//!
//! Its functions are the crate's own affair: their names, and how they take their arguments, are believed only for a
//! version that was looked at, and where the code of each reads its arguments as it did there.

use std::collections::{BTreeSet, HashMap};

use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfo, InstructionInfoFactory, Mnemonic, OpAccess,
    Register,
};
use memchr::memmem;
use object::{Architecture, Object, ObjectSection as _, ObjectSymbol as _, SectionKind};

use super::{
    cost::Stop,
    elf::{self, Elf},
    tls::Points,
};

/// A function, as the compiler names it, and what is known of it.
struct Function {
    /// Its module, and its type and name, as both of the compiler's ways to write names hold them.
    name: (&'static str, &'static str),
    /// As the log calls it.
    shown: &'static str,
    program: &'static str,
    returns: bool,
    /// Distances at which it reads what its second argument points to.
    reads: &'static [u64],
}

const RETURN: &str = "handle_rustls_return";
const FLUSH: Function = Function {
    name: ("6rustls6vecbuf", "14ChunkVecBuffer8write_to"),
    shown: "ChunkVecBuffer::write_to",
    program: "handle_rustls_flush",
    returns: true,
    reads: &[],
};
const SEND: Function = Function {
    name: ("6rustls12common_state", "11CommonState20send_appdata_encrypt"),
    shown: "CommonState::send_appdata_encrypt",
    program: "handle_rustls_send",
    returns: true,
    reads: &[0, 0x10, 0x18],
};
const RECEIVE: Function = Function {
    name: ("6rustls12common_state", "11CommonState23take_received_plaintext"),
    shown: "CommonState::take_received_plaintext",
    program: "handle_rustls_receive",
    returns: false,
    reads: &[0, 8, 0x10],
};
const FUNCTIONS: [&Function; 3] = [&FLUSH, &SEND, &RECEIVE];
/// Words of the queue that `SEND` counts the bytes of: its limit, its blocks, and in newer versions what was taken of it.
const QUEUE: std::ops::RangeInclusive<usize> = 6..=7;
/// Paths of its sources, which messages of failed checks hold, name the version.
const PATH: &[u8] = b"/rustls-0.";
const KNOWN: &str = "23";
/// Bytes of the longest function that is looked through.
const CODE_MAX: u64 = 64 << 10;

/// All programs of this.
pub fn programs() -> impl Iterator<Item = &'static str> {
    FUNCTIONS.iter().map(|function| function.program).chain([RETURN])
}

/// Whether a symbol is a function that a probe may go to.
pub fn is_function(symbol: &str) -> bool {
    let is_rustls = symbol.starts_with("_ZN6rustls")
        || (symbol.starts_with("_R") && memmem::find(symbol.as_bytes(), b"_6rustls").is_some());
    is_rustls && FUNCTIONS.iter().any(|function| function.is(symbol))
}

/// The probes of a file, whose functions are known by address. `None`: rustls is not in it, or has no symbols.
///
/// # Errors
///
/// It has rustls, whose functions cannot be followed beyond doubt.
pub fn points(elf: &Elf<'_>, known: &HashMap<String, u64>) -> Result<Option<Points>, String> {
    let all = FUNCTIONS.map(|function| {
        let named = known.iter().filter(|(symbol, _)| function.is(symbol));
        (function, named.map(|(_, address)| *address).collect::<Vec<_>>())
    });
    if all[0].1.is_empty() {
        return Ok(None);
    }
    if elf.architecture() != Architecture::X86_64 {
        return Err("rustls is read on x86-64 only".to_owned());
    }
    match versions(elf).into_iter().collect::<Vec<_>>().as_slice() {
        [only] if only == KNOWN => {}
        [] => return Err("rustls of a version that it does not tell".to_owned()),
        found => return Err(format!("rustls 0.{}: known is 0.{KNOWN} alone", found.join(" and 0."))),
    }
    let mut found = Points {
        library: "rustls",
        how: "symbols",
        programs: vec![(RETURN, Vec::new())],
        cookie: 0,
        functions: Vec::new(),
        stop: Stop::SteppedTwice,
    };
    for (function, addresses) in &all {
        let [address] = addresses.as_slice() else {
            let shown = function.shown;
            return Err(format!("rustls, compiled in, with {} functions {shown} where one is known", addresses.len()));
        };
        add(elf, &mut found, function, *address)?;
    }
    Ok(Some(found))
}

impl Function {
    /// Whether a symbol is this function, and not one inside of it: in the older of the compiler's ways a hash follows
    /// the name, in the newer one nothing. Parts of a program that are optimised together get a suffix.
    fn is(&self, symbol: &str) -> bool {
        let (module, name) = self.name;
        let symbol = symbol.split_once(".llvm.").map_or(symbol, |(symbol, _)| symbol);
        let Some((before, after)) = symbol.rsplit_once(name) else { return false };
        let hash = |text: &str| text.len() == 20 && text.starts_with("17h") && text.ends_with('E');
        match (before.strip_prefix("_ZN"), before.strip_prefix("_RN")) {
            (Some(path), _) => path == module && hash(after),
            (_, Some(path)) => path.contains(module) && after.is_empty(),
            _ => false,
        }
    }
}

/// What follows the first part of its version number, in all places.
fn versions(elf: &Elf<'_>) -> BTreeSet<String> {
    let texts = elf.sections().filter(|s| matches!(s.kind(), SectionKind::ReadOnlyData | SectionKind::ReadOnlyString));
    let number = |text: &[u8]| {
        let digits = text.iter().take_while(|byte| byte.is_ascii_digit());
        digits.map(|byte| char::from(*byte)).collect::<String>()
    };
    let of = |data: &[u8]| memmem::find_iter(data, PATH).map(|at| number(&data[at + PATH.len()..])).collect::<Vec<_>>();
    texts.filter_map(|section| section.data().ok()).flat_map(of).filter(|version| !version.is_empty()).collect()
}

fn add(elf: &Elf<'_>, found: &mut Points, function: &Function, address: u64) -> Result<(), String> {
    let size = elf.symbols().find(|symbol| symbol.address() == address).map(|symbol| symbol.size());
    let code = elf::code(elf, address, size.unwrap_or(0).min(CODE_MAX));
    let facts = code.and_then(|code| Facts::of(code, address)).filter(|facts| facts.agree(function));
    let unknown = || format!("rustls, compiled in, whose {} is not as it is known", function.shown);
    let facts = facts.ok_or_else(unknown)?;
    if function.program == SEND.program {
        found.cookie = facts.queue().ok_or_else(unknown)?;
    }
    let offset =
        |address| elf::file_offset(elf, address).ok_or_else(|| format!("{} is not in the file", function.shown));
    found.functions.push(function.shown);
    if function.returns {
        for at in facts.returns {
            found.add(RETURN, offset(at)?);
        }
    }
    found.add(function.program, offset(address)?);
    Ok(())
}

/// What the code of a function says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Facts {
    /// Addresses of its return instructions.
    returns: Vec<u64>,
    /// Whether it is also left by a jump.
    jumps_out: bool,
    /// Distances of the words that it reads behind its first argument, and behind its second.
    reads: [BTreeSet<u64>; 2],
}

impl Facts {
    /// `None`: it is no code.
    fn of(code: &[u8], address: u64) -> Option<Self> {
        let mut decoder = Decoder::with_ip(64, code, address, DecoderOptions::NONE);
        let (mut instruction, mut info) = (Instruction::default(), InstructionInfoFactory::new());
        let (mut facts, inside) = (Self::default(), address..address.saturating_add(code.len() as u64));
        // Registers that hold the arguments.
        let mut holders = [vec![Register::RDI], vec![Register::RSI]];
        while decoder.can_decode() {
            decoder.decode_out(&mut instruction);
            if instruction.is_invalid() {
                return None;
            }
            match instruction.flow_control() {
                FlowControl::Return => facts.returns.push(instruction.ip()),
                FlowControl::UnconditionalBranch => {
                    facts.jumps_out |= !inside.contains(&instruction.near_branch_target());
                }
                // To another function; tables of jumps inside are read into a register first.
                FlowControl::IndirectBranch => facts.jumps_out |= instruction.is_ip_rel_memory_operand(),
                _ => {}
            }
            let used = info.info(&instruction);
            for (reads, holders) in facts.reads.iter_mut().zip(&mut holders) {
                note(&instruction, used, reads, holders);
            }
        }
        Some(facts)
    }

    fn agree(&self, function: &Function) -> bool {
        let returns = !self.returns.is_empty() && !self.jumps_out;
        (returns || !function.returns) && function.reads.iter().all(|distance| self.reads[1].contains(distance))
    }

    /// How far behind its first argument a queue lies: all words of it are read, and those around it are not.
    fn queue(&self) -> Option<u64> {
        let words: Vec<u64> = self.reads[0].iter().copied().collect();
        let mut runs = words.chunk_by(|one, next| one + 8 == *next).filter(|run| QUEUE.contains(&run.len()));
        let only = runs.next().filter(|_| runs.next().is_none())?;
        only.first().copied()
    }
}

/// Takes note of what an instruction reads behind an argument, and of the registers that hold it afterwards.
fn note(instruction: &Instruction, used: &InstructionInfo, reads: &mut BTreeSet<u64>, holders: &mut Vec<Register>) {
    for memory in used.used_memory().iter().filter(|memory| holders.contains(&memory.base())) {
        if is_read(memory.access()) && memory.index() == Register::None {
            let (first, size) = (memory.displacement(), memory.memory_size().size() as u64);
            let last = first.saturating_add(size.saturating_sub(1));
            reads.extend((first / 8..=last / 8).map(|word| word * 8));
        }
    }
    if matches!(instruction.flow_control(), FlowControl::Call | FlowControl::IndirectCall) {
        holders.retain(|register| outlives_calls(*register));
    }
    let copies = instruction.mnemonic() == Mnemonic::Mov && holders.contains(&instruction.op1_register());
    let written = used.used_registers().iter().filter(|used| used.access() != OpAccess::Read);
    let written: Vec<Register> = written.map(|used| used.register().full_register()).collect();
    holders.retain(|register| !written.contains(register));
    if copies && instruction.op0_register().is_gpr64() {
        holders.push(instruction.op0_register());
    }
}

fn is_read(access: OpAccess) -> bool {
    matches!(access, OpAccess::Read | OpAccess::CondRead | OpAccess::ReadWrite | OpAccess::ReadCondWrite)
}

fn outlives_calls(register: Register) -> bool {
    use Register::{R12, R13, R14, R15, RBP, RBX};
    matches!(register, RBX | RBP | R12 | R13 | R14 | R15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_known_by_both_ways_to_write_names() {
        let check = |symbol: &str, expected| assert_eq!(is_function(symbol), expected, "{symbol}");
        check("_ZN6rustls6vecbuf14ChunkVecBuffer8write_to17ha2c5aae94a1f3744E", true);
        check("_ZN6rustls6vecbuf14ChunkVecBuffer8write_to17ha2c5aae94a1f3744E.llvm.13357988810138331178", true);
        check("_RNvMNtCsdmM3yMyrGeF_6rustls6vecbufNtB2_14ChunkVecBuffer8write_to", true);
        check("_RNCNvMNtCsdmM3yMyrGeF_6rustls6vecbufNtB2_14ChunkVecBuffer8write_to0B6_", false);
        check("_ZN6rustls6vecbuf14ChunkVecBuffer8write_to28_$u7b$$u7b$closure$u7d$$u7d$17ha2c5aae94a1f3744E", false);
        check("_ZN5other6vecbuf14ChunkVecBuffer8write_to17ha2c5aae94a1f3744E", false);
        check("ChunkVecBuffer::write_to", false);
    }

    #[test]
    fn a_queue_is_the_one_run_of_as_many_words() {
        let check = |distances: &[u64], expected| {
            let facts = Facts { reads: [distances.iter().copied().collect(), BTreeSet::new()], ..Facts::default() };
            assert_eq!(facts.queue(), expected, "{distances:x?}");
        };
        let queue = [0x88, 0x90, 0x98, 0xa0, 0xa8, 0xb0, 0xb8];
        check(&queue, Some(0x88));
        check(&[&queue[..], &[0x30, 0x38, 0x48, 0x308]].concat(), Some(0x88));
        check(&queue[..6], Some(0x88));
        check(&queue[..5], None);
        check(&[&queue[..], &[0xc0]].concat(), None);
        check(&[&queue[..], &queue.map(|word| word + 0x100)].concat(), None);
    }

    #[test]
    fn reads_of_the_second_argument_are_followed_through_copies() {
        let code = [
            0x48, 0x8b, 0x06, // mov rax, [rsi]
            0x48, 0x89, 0xf3, // mov rbx, rsi
            0x48, 0x89, 0xd6, // mov rsi, rdx
            0x48, 0x8b, 0x4e, 0x20, // mov rcx, [rsi+0x20]
            0x8b, 0x4f, 0x14, // mov ecx, [rdi+0x14]
            0x0f, 0x10, 0x43, 0x08, // movups xmm0, [rbx+8]
            0xc3, // ret
        ];
        let facts = Facts::of(&code, 0x1000).expect("it is code");
        assert_eq!(
            facts,
            Facts { returns: vec![0x1014], jumps_out: false, reads: [[0x10].into(), [0, 8, 0x10].into()] }
        );
        assert_eq!(facts.queue(), None);
        let facts = Facts::of(&[0xff, 0x25, 0, 1, 0, 0, 0xc3], 0x1000).expect("it is code");
        assert!(facts.jumps_out, "by an address in memory");
        let facts = Facts::of(&[0xff, 0xe0, 0xe9, 0, 1, 0, 0], 0x1000).expect("it is code");
        assert!(facts.jumps_out && facts.returns.is_empty(), "by a jump");
        assert_eq!(Facts::of(&[0x06], 0x1000), None, "no code");
    }
}
