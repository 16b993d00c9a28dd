//! Where the TLS functions lie in a file.
//!
//! Exported functions often begin with an instruction that a probe must single-step, which costs ten to forty times as
//! much as one that the kernel emulates. Behind OpenSSL's stands one internal function for each direction, called by
//! both `SSL_read` and `SSL_read_ex` (`SSL_write` and `SSL_write_ex`), and by its streams: where it can be found beyond
//! doubt, the probe goes there. Builds without symbols are known by their
//! build id.

use std::{collections::HashMap, fs::File, path::Path};

use super::{
    bounded::Bounded,
    cost::Stop,
    elf::{self, Elf},
    go,
    libraries::{self, Group, HANDSHAKE, LIBRARIES, Library, RETURN},
    rustls,
    signatures::Signatures,
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
    /// What its programs are told of the file.
    pub cookie: u64,
    /// The functions by name, for the log.
    pub functions: Vec<&'static str>,
    /// How calls that move bytes are stopped: the dearest way counts.
    pub stop: Stop,
}

/// Looks into an ELF file. Empty: it has no TLS functions.
///
/// # Errors
///
/// The file cannot be read or is no ELF file, or is not what it seems to be.
pub fn points(path: &Path, signatures: &Signatures) -> Result<Vec<Points>, String> {
    let file = File::open(path).map_err(|e| e.to_string())?;
    let file = Bounded::new(file);
    let elf = Elf::parse(&file).map_err(|e| e.to_string())?;
    let names = libraries::functions();
    let longest = names.iter().map(|name| name.len()).max().unwrap_or(0);
    // Programs have symbols by the hundred thousand, and most of them are long.
    let known = elf::symbols(&elf, |name| (name.len() <= longest && names.contains(name)) || rustls::is_function(name));
    let has = |library: &&Library| library.needs.iter().all(|name| known.contains_key(*name));
    let libraries = LIBRARIES.iter().filter(has);
    let mut all: Vec<Points> = libraries.map(|library| points_of(&elf, library, "symbols", &known)).collect();
    let entry = signatures.of(&elf).filter(|entry| all.iter().all(|points| points.library != entry.library().name));
    let signed = entry.map(|entry| Ok(points_of(&elf, entry.library(), "signature", &entry.checked(&elf)?)));
    let mut faults = Vec::new();
    for found in [signed.transpose(), go::points(&elf), rustls::points(&elf, &known)] {
        match found {
            Ok(found) => all.extend(found),
            Err(fault) => faults.push(fault),
        }
    }
    if faults.is_empty() {
        return Ok(all);
    }
    let faults = faults.join("; ");
    if all.is_empty() {
        return Err(faults);
    }
    // What else it has is read all the same.
    tracing::warn!(path = %path.display(), faults, "no probes for one of its libraries");
    Ok(all)
}

fn points_of(elf: &Elf<'_>, library: &Library, how: &'static str, known: &HashMap<String, u64>) -> Points {
    let mut found = Points {
        library: library.name,
        how,
        programs: vec![(RETURN, Vec::new())],
        cookie: 0,
        functions: Vec::new(),
        stop: Stop::Emulated,
    };
    for group in library.groups {
        for (name, program, address) in cheaper(elf, group, known) {
            let Some(offset) = elf::file_offset(elf, elf::entry(elf, address)) else { continue };
            found.functions.push(name);
            if group.returns {
                found.add(RETURN, offset);
            }
            // A connection has one handshake, and calls without end.
            if group.returns && program != HANDSHAKE && !elf::is_emulated(elf, elf::entry(elf, address)) {
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

/// The functions of a group, or the one inside of them if it is certain and costs no more: others call that as well, as
/// OpenSSL's own streams (BIO) do. Names of one address, as symbols that stand for each other have, are one function.
fn cheaper(elf: &Elf<'_>, group: &Group, known: &HashMap<String, u64>) -> Vec<Function> {
    let mut exported: Vec<Function> = Vec::new();
    for (name, program) in group.functions {
        if let Some(address) = known.get(*name).filter(|address| exported.iter().all(|(.., other)| other != *address)) {
            exported.push((name, program, *address));
        }
    }
    let applies = |needs: Option<&str>| needs.is_none_or(|name| known.contains_key(name));
    let Some(inside) = group.inside.iter().find(|inside| applies(inside.needs)) else { return exported };
    let is_cheap = |address: u64| elf::is_emulated(elf, elf::entry(elf, address));
    let is_exported = |target: &u64| exported.iter().any(|(.., address)| address == target);
    let called = |address: u64| -> Vec<u64> {
        elf::calls_inside(elf, address).into_iter().filter(|target| !is_exported(target)).collect()
    };
    // Those that only hand on to another exported one are left: calls in calls are not looked at.
    let (callers, others): (Vec<Function>, Vec<Function>) =
        exported.iter().partition(|(.., address)| !called(*address).is_empty());
    let common = only_common(&callers.iter().map(|(.., address)| called(*address)).collect::<Vec<_>>());
    match common.filter(|common| is_cheap(*common) || !exported.iter().all(|(.., address)| is_cheap(*address))) {
        Some(common) => [vec![(inside.name, inside.program, common)], others].concat(),
        None => exported,
    }
}

/// The one that several lists have in common.
fn only_common(lists: &[Vec<u64>]) -> Option<u64> {
    let [first, others @ ..] = lists else { return None };
    let mut common = first.iter().filter(|target| others.iter().all(|list| list.contains(target)));
    common.next().filter(|_| !others.is_empty() && common.next().is_none()).copied()
}
