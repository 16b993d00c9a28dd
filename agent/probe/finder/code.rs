//! Functions without symbols, as their code shows them: where they begin, whom they call, and what they hand on together
//! with a text.

use std::collections::{BTreeSet, HashSet};

use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register,
};
use memchr::{memchr_iter, memmem};
use object::{Object, ObjectSection as _, SectionKind};

/// Instructions of one function that are followed.
const FOLLOWED: usize = 16_384;
/// Registers of arguments, in their order.
const ARGUMENTS: [Register; 6] =
    [Register::RDI, Register::RSI, Register::RDX, Register::RCX, Register::R8, Register::R9];

/// What is known of the registers of arguments.
pub type Arguments = [Option<u64>; ARGUMENTS.len()];

/// The code of a file.
pub struct Code<'a> {
    texts: Vec<(u64, &'a [u8])>,
    /// Where calls go, in order: functions begin there.
    called: Vec<u64>,
    /// Where functions begin, or parts of them that lie elsewhere, as far as the file has a table for unwinding.
    listed: Vec<u64>,
}

/// A function, as far as its branches lead.
#[derive(Debug, Default)]
pub struct Function {
    /// Its address.
    pub start: u64,
    /// Functions that it calls, or ends in.
    pub calls: BTreeSet<u64>,
    /// Arguments of each call, or at each jump that may lead to one, as far as they are constants.
    pub handed: Vec<Arguments>,
    /// Whether it writes to memory that is not its own frame.
    pub writes: bool,
    /// Whether it does nothing with an object that is null.
    pub ignores_null: bool,
    /// Places in a table of functions, the first field of an object, that it calls.
    pub methods: BTreeSet<u64>,
}

impl<'a> Code<'a> {
    /// Looks through all code of a file.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    pub fn of(elf: &object::File<'a>) -> Result<Self, String> {
        let mut texts = Vec::new();
        for section in elf.sections().filter(|section| section.kind() == SectionKind::Text) {
            texts.push((section.address(), section.data().map_err(|error| error.to_string())?));
        }
        let mut code = Self { texts, called: Vec::new(), listed: unwound(elf) };
        let mut called: Vec<u64> = code.texts.iter().flat_map(|(at, bytes)| call_targets(*at, bytes)).collect();
        called.retain(|target| code.may_begin(*target));
        called.sort_unstable();
        called.dedup();
        code.called = called;
        Ok(code)
    }

    /// From an address on; empty outside of all code.
    fn from(&self, address: u64) -> &'a [u8] {
        let inside = |(at, bytes): &(u64, &'a [u8])| {
            let skipped = usize::try_from(address.checked_sub(*at)?).ok()?;
            bytes.get(skipped..).filter(|rest| !rest.is_empty())
        };
        self.texts.iter().find_map(inside).unwrap_or_default()
    }

    /// Whether a function can begin at an address: where compilers like to put them, or right behind another one. Much
    /// that looks like a call is none, and leads into the middle of functions.
    fn may_begin(&self, address: u64) -> bool {
        const RET: u8 = 0xc3;
        const INT3: u8 = 0xcc;
        let before = address.checked_sub(1).and_then(|before| self.from(before).first());
        !self.from(address).is_empty() && (address.is_multiple_of(16) || matches!(before, Some(&(RET | INT3))))
    }

    fn is_called(&self, address: u64) -> bool {
        self.called.binary_search(&address).is_ok()
    }

    /// Where functions begin, from one address up to another.
    pub fn starts(&self, from: u64, to: u64) -> BTreeSet<u64> {
        let within = |starts: &[u64]| -> Vec<u64> {
            let place = |address| starts.partition_point(|start| *start < address);
            starts[place(from)..place(to).max(place(from))].to_vec()
        };
        let listed = within(&self.listed).into_iter().filter(|start| self.may_begin(*start));
        within(&self.called).into_iter().chain(listed).collect()
    }

    /// Instructions that may load an address.
    pub fn references(&self, address: u64) -> Vec<u64> {
        let mut found = Vec::new();
        for (at, bytes) in &self.texts {
            // lea register, [rip + …]
            found.extend(memchr_iter(0x8d, bytes).filter_map(|place| {
                let modrm = *bytes.get(place + 1)?;
                let ip = at + place as u64 + 6;
                (modrm & 0xc7 == 5 && relative(bytes, place + 2, ip) == Some(address)).then_some(at + place as u64)
            }));
            // mov register, address: where the program lies at a fixed place, below 4 GiB.
            if let Ok(low) = u32::try_from(address) {
                let low = low.to_le_bytes();
                let places = memmem::find_iter(bytes, &low).filter_map(|place| place.checked_sub(1));
                found.extend(places.filter(|place| bytes[*place] & 0xf8 == 0xb8).map(|place| at + place as u64));
            }
        }
        found
    }

    /// Follows a function through all of its branches.
    pub fn function(&self, start: u64) -> Function {
        let mut walk = Walk::of(self, start);
        let mut open = vec![(start, State::default())];
        while let Some((address, state)) = open.pop() {
            walk.block(address, state, &mut open);
        }
        walk.found
    }
}

/// Where the parts begin that the file's table for unwinding lists; none, if it has no such table of the usual kind.
fn unwound(elf: &object::File<'_>) -> Vec<u64> {
    // Version 1; the number of entries in four bytes, and each as two distances of four bytes from the table.
    const HEAD: [u8; 4] = [1, 0x1b, 3, 0x3b];
    let section = elf.section_by_name(".eh_frame_hdr");
    let Some((at, bytes)) = section.and_then(|section| Some((section.address(), section.data().ok()?))) else {
        return Vec::new();
    };
    if !bytes.starts_with(&HEAD) {
        return Vec::new();
    }
    let entries = bytes.get(12..).unwrap_or_default().chunks_exact(8);
    let mut starts: Vec<u64> = entries.filter_map(|entry| relative(entry, 0, at)).collect();
    starts.sort_unstable();
    starts
}

fn call_targets(at: u64, bytes: &[u8]) -> impl Iterator<Item = u64> {
    memchr_iter(0xe8, bytes).filter_map(move |place| relative(bytes, place + 1, at + place as u64 + 5))
}

/// Where a distance of four bytes leads.
fn relative(bytes: &[u8], place: usize, ip: u64) -> Option<u64> {
    let distance = i32::from_le_bytes(*bytes.get(place..)?.first_chunk()?);
    ip.checked_add_signed(distance.into())
}

/// What is known at an instruction.
#[derive(Clone, Copy, Default)]
struct State {
    arguments: Arguments,
    /// The register that holds the first field of some object.
    first_field: Option<Register>,
}

struct Walk<'c, 'a> {
    code: &'c Code<'a>,
    seen: HashSet<u64>,
    /// Whether the frame is reached by a register of its own.
    framed: bool,
    info: InstructionInfoFactory,
    found: Function,
}

impl<'c, 'a> Walk<'c, 'a> {
    fn of(code: &'c Code<'a>, start: u64) -> Self {
        let mut first = Decoder::with_ip(64, code.from(start), start, DecoderOptions::NONE);
        let head: Vec<Instruction> = first.iter().take(3).collect();
        let is = |n: usize, mnemonic| head.get(n).is_some_and(|instruction| instruction.mnemonic() == mnemonic);
        let framed = head.windows(2).any(|two| {
            two[0].mnemonic() == Mnemonic::Push
                && two[1].mnemonic() == Mnemonic::Mov
                && (two[1].op0_register(), two[1].op1_register()) == (Register::RBP, Register::RSP)
        });
        let tests = head.first().is_some_and(|test| {
            test.mnemonic() == Mnemonic::Test
                && (test.op0_register(), test.op1_register()) == (Register::RDI, Register::RDI)
        });
        let found = Function { start, ignores_null: tests && is(1, Mnemonic::Je), ..Function::default() };
        Self { code, seen: HashSet::new(), framed, info: InstructionInfoFactory::new(), found }
    }

    fn block(&mut self, address: u64, mut state: State, open: &mut Vec<(u64, State)>) {
        let mut decoder = Decoder::with_ip(64, self.code.from(address), address, DecoderOptions::NONE);
        let (mut instruction, mut after_call) = (Instruction::default(), false);
        while decoder.can_decode() && self.seen.len() < FOLLOWED {
            decoder.decode_out(&mut instruction);
            let at = instruction.ip();
            let another = self.code.is_called(at) || self.code.listed.binary_search(&at).is_ok();
            if instruction.is_invalid() || (another && at != address) {
                return;
            }
            // Behind a call that does not return lies what fills the space to the next function.
            if after_call && instruction.mnemonic() == Mnemonic::Nop {
                return;
            }
            if !self.seen.insert(at) {
                // What is known here may be more than what was known on the other way.
                return self.found.handed.push(state.arguments);
            }
            after_call = matches!(instruction.flow_control(), FlowControl::Call | FlowControl::IndirectCall);
            let target = instruction.near_branch_target();
            match instruction.flow_control() {
                FlowControl::Next => self.step(&instruction, &mut state),
                FlowControl::Call | FlowControl::IndirectCall => {
                    self.call(&instruction, target, &state);
                    state = State::default();
                }
                FlowControl::ConditionalBranch if self.code.is_called(target) => {
                    self.call(&instruction, target, &state);
                }
                FlowControl::ConditionalBranch => open.push((target, state)),
                FlowControl::UnconditionalBranch if self.code.is_called(target) => {
                    return self.call(&instruction, target, &state);
                }
                FlowControl::UnconditionalBranch => {
                    // A call that several places share lies behind it.
                    self.found.handed.push(state.arguments);
                    return open.push((target, state));
                }
                FlowControl::IndirectBranch => return self.call(&instruction, 0, &state),
                _ => return,
            }
        }
    }

    fn call(&mut self, instruction: &Instruction, target: u64, state: &State) {
        self.found.handed.push(state.arguments);
        if target != 0 {
            self.found.calls.insert(target);
        } else if instruction.op0_kind() == OpKind::Memory && state.first_field == Some(instruction.memory_base()) {
            self.found.methods.insert(instruction.memory_displacement64());
        }
    }

    fn step(&mut self, instruction: &Instruction, state: &mut State) {
        let info = self.info.info(instruction);
        let writes = |access| matches!(access, OpAccess::Write | OpAccess::ReadWrite | OpAccess::CondWrite);
        let own = |base| base == Register::RSP || (self.framed && base == Register::RBP);
        // A copy in place of a call fills a buffer of the caller's.
        let copies = instruction.is_string_instruction();
        self.found.writes |=
            !copies && info.used_memory().iter().any(|memory| writes(memory.access()) && !own(memory.base()));
        for used in info.used_registers().iter().filter(|used| writes(used.access())) {
            let written = used.register().full_register();
            if let Some(n) = ARGUMENTS.iter().position(|argument| *argument == written) {
                state.arguments[n] = constant(instruction);
            }
            state.first_field = state.first_field.filter(|register| *register != written);
        }
        let loads = instruction.mnemonic() == Mnemonic::Mov && instruction.op1_kind() == OpKind::Memory;
        let plain = instruction.memory_index() == Register::None && instruction.memory_displacement64() == 0;
        if loads && plain && !own(instruction.memory_base()) {
            state.first_field = Some(instruction.op0_register());
        }
    }
}

/// What an instruction leaves in its register, if that is always the same.
fn constant(instruction: &Instruction) -> Option<u64> {
    match (instruction.mnemonic(), instruction.op1_kind()) {
        (Mnemonic::Mov, OpKind::Immediate32) => Some(instruction.immediate32().into()),
        (Mnemonic::Xor, OpKind::Register) if instruction.op0_register() == instruction.op1_register() => Some(0),
        (Mnemonic::Lea, OpKind::Memory) if instruction.is_ip_rel_memory_operand() => {
            Some(instruction.ip_rel_memory_address())
        }
        _ => None,
    }
}
