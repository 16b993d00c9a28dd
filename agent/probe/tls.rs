//! Where the TLS functions lie in a file.
//!
//! Exported functions often begin with an instruction that a probe must single-step, which costs ten to forty times as
//! much as one that the kernel emulates. Behind OpenSSL's stands one internal function for each direction, called by
//! both `SSL_read` and `SSL_read_ex` (`SSL_write` and `SSL_write_ex`): where it can be found beyond doubt, the probe goes
//! there.

use std::{collections::HashMap, fs::File, path::Path};

use object::{Object, read::ReadCache};

use super::{
    cost::Stop,
    elf, go,
    libraries::{self, Group, HANDSHAKE, LIBRARIES, Library, RETURN},
};

/// The probes of a file for one library, and how they were found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Points {
    /// The library.
    pub library: &'static str,
    /// How its functions were found.
    pub how: &'static str,
    /// File offsets by program, those of returns first: a call that is entered before its return is watched would stay
    /// open.
    pub programs: Vec<(&'static str, Vec<u64>)>,
    /// The functions by name, for the log.
    pub functions: Vec<&'static str>,
    /// How calls that move bytes are stopped: the dearest way counts.
    pub stop: Stop,
}

/// Looks into an ELF file. Empty: it has no TLS functions.
///
/// # Errors
///
/// The file cannot be read or is no ELF file.
pub fn points(path: &Path) -> Result<Vec<Points>, String> {
    let file = File::open(path).map_err(|e| e.to_string())?;
    let cache = ReadCache::new(file);
    let elf = object::File::parse(&cache).map_err(|e| e.to_string())?;
    let names = libraries::functions();
    let longest = names.iter().map(|name| name.len()).max().unwrap_or(0);
    // Programs have symbols by the hundred thousand, and most of them are long.
    let known = elf::symbols(&elf, |name| name.len() <= longest && names.contains(name));
    let has = |library: &&Library| library.needs.iter().all(|name| known.contains_key(*name));
    let mut all: Vec<Points> = LIBRARIES.iter().filter(has).map(|library| points_of(&elf, library, &known)).collect();
    all.extend(go::points(&elf)?);
    Ok(all)
}

fn points_of<'a>(elf: &impl Object<'a>, library: &Library, known: &HashMap<String, u64>) -> Points {
    let mut found = Points {
        library: library.name,
        how: "symbols",
        programs: vec![(RETURN, Vec::new())],
        functions: Vec::new(),
        stop: Stop::Emulated,
    };
    for group in library.groups {
        for (name, program, address) in cheaper(elf, group, known) {
            let Some(offset) = elf::file_offset(elf, address) else { continue };
            found.functions.push(name);
            if group.returns {
                found.add(RETURN, offset);
            }
            // A connection has one handshake, and calls without end.
            if group.returns && program != HANDSHAKE && !elf::is_emulated(elf, address) {
                found.stop = Stop::Stepped;
            }
            found.add(program, offset);
        }
    }
    found
}

impl Points {
    pub(super) fn add(&mut self, program: &'static str, offset: u64) {
        match self.programs.iter_mut().find(|(other, _)| *other == program) {
            Some((_, offsets)) => offsets.push(offset),
            None => self.programs.push((program, vec![offset])),
        }
    }

    /// Probes in all.
    pub fn count(&self) -> usize {
        self.programs.iter().map(|(_, offsets)| offsets.len()).sum()
    }
}

type Function = (&'static str, &'static str, u64);

/// The functions of a group, or the one inside of them if that is cheaper and certain. Names of one address, as symbols
/// that stand for each other have, are one function.
fn cheaper<'a>(elf: &impl Object<'a>, group: &Group, known: &HashMap<String, u64>) -> Vec<Function> {
    let mut exported: Vec<Function> = Vec::new();
    for (name, program) in group.functions {
        if let Some(address) = known.get(*name).filter(|address| exported.iter().all(|(.., other)| other != *address)) {
            exported.push((name, program, *address));
        }
    }
    let applies = |needs: Option<&str>| needs.is_none_or(|name| known.contains_key(name));
    let inside = group.inside.iter().find(|inside| applies(inside.needs));
    let expensive = exported.iter().any(|(.., address)| !elf::is_emulated(elf, *address));
    match inside.filter(|_| expensive && exported.len() > 1) {
        Some(inside) => match elf::common_callee(elf, exported.iter().map(|(.., address)| *address)) {
            Some(address) if elf::is_emulated(elf, address) => vec![(inside.name, inside.program, address)],
            _ => exported,
        },
        None => exported,
    }
}
