//! Builds of programs that have a TLS library inside and no symbols: where its functions lie, by the build id that the
//! linker has put into the file.
//!
//! An entry is believed as a whole or not at all: each of its functions must lie in code, and begin with the bytes that
//! were written down when the build was looked at. `ringtap signature FILE` makes an entry.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::{self, Write as _},
    fs,
    path::Path,
    sync::LazyLock,
};

use object::{Object, ObjectSection as _, SectionKind};
use serde::Deserialize;

use super::{
    elf::{self, Elf},
    finder::{self, Findings},
    libraries::{LIBRARIES, Library},
};

/// Bytes of a function that an entry holds.
const CODE: u64 = 32;
/// Fewer are not enough to tell functions apart.
const CODE_MIN: usize = 16;

static KNOWN: LazyLock<Vec<Entry>> =
    LazyLock::new(|| parse("signatures.yaml", include_str!("signatures.yaml")).expect("a test reads it"));

/// All builds that are known.
#[derive(Debug, Default)]
pub struct Signatures {
    /// Of a file of the user's.
    own: Vec<Entry>,
}

/// A build.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "Written")]
pub struct Entry {
    /// Program and version, for people.
    program: String,
    build_id: Vec<u8>,
    library: &'static Library,
    functions: Vec<Function>,
}

#[derive(Debug, Clone)]
struct Function {
    name: &'static str,
    address: u64,
    code: Vec<u8>,
}

/// An entry as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    program: String,
    build_id: String,
    library: String,
    functions: BTreeMap<String, WrittenFunction>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenFunction {
    at: u64,
    code: String,
}

impl Signatures {
    /// Those that the program brings, and those of a file, which come first.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or not be understood.
    pub fn with(file: Option<&Path>) -> Result<Self, String> {
        let Some(file) = file else { return Ok(Self::default()) };
        let name = file.display().to_string();
        let text = fs::read_to_string(file).map_err(|error| format!("cannot read {name}: {error}"))?;
        Ok(Self { own: parse(&name, &text)? })
    }

    /// Builds that are known.
    pub fn count(&self) -> usize {
        self.own.len() + KNOWN.len()
    }

    /// The entry of a file, if its build is known.
    pub(super) fn of(&self, elf: &Elf<'_>) -> Option<&Entry> {
        let id = elf.build_id().ok()??;
        self.own.iter().chain(KNOWN.iter()).find(|entry| entry.build_id == id)
    }
}

fn parse(name: &str, text: &str) -> Result<Vec<Entry>, String> {
    let entries: Option<Vec<Entry>> = serde_yaml::from_str(text).map_err(|error| {
        let line = error.location().map_or(String::new(), |at| format!(":{}", at.line()));
        format!("{name}{line}: {error}")
    })?;
    Ok(entries.unwrap_or_default())
}

impl TryFrom<Written> for Entry {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let Written { program, build_id, library: name, functions } = written;
        let library = LIBRARIES.iter().find(|library| library.name == name).ok_or_else(|| {
            let known: Vec<&str> = LIBRARIES.iter().map(|library| library.name).collect();
            format!("{program}: `{name}` is not a library that is known: {}", known.join(", "))
        })?;
        let build_id = bytes(&build_id).filter(|id| !id.is_empty());
        let build_id =
            build_id.ok_or_else(|| format!("{program}: its build id is not written in hexadecimal digits"))?;
        if let Some(lacks) = library.needs.iter().find(|need| !functions.contains_key(**need)) {
            return Err(format!("{program}: {lacks} is missing, without which nothing of {name} can be read"));
        }
        let functions = functions.into_iter().map(|(function, written)| {
            Function::of(library, &function, &written).map_err(|why| format!("{program}: {function}: {why}"))
        });
        Ok(Self { functions: functions.collect::<Result<_, _>>()?, program, build_id, library })
    }
}

impl Function {
    fn of(library: &Library, name: &str, written: &WrittenFunction) -> Result<Self, String> {
        let mut names = library.groups.iter().flat_map(|group| group.functions).map(|(known, _)| *known);
        let known = names.find(|known| *known == name);
        let name = known.ok_or_else(|| format!("no probe goes to this function of {}", library.name))?;
        let code = bytes(&written.code).ok_or("its code is not written in hexadecimal digits")?;
        if code.len() < CODE_MIN {
            return Err(format!("{} bytes of code are too few: at least {CODE_MIN}", code.len()));
        }
        Ok(Self { name, address: written.at, code })
    }

    /// Whether it is as written.
    fn is_in(&self, elf: &Elf<'_>) -> bool {
        let holds = |section: &object::Section<'_, '_, _>| {
            self.address.checked_sub(section.address()).is_some_and(|inside| inside < section.size())
        };
        let is_code = elf.sections().any(|section| section.kind() == SectionKind::Text && holds(&section));
        is_code && elf::code(elf, self.address, self.code.len() as u64) == Some(&self.code)
    }
}

impl Entry {
    /// The library that the build has inside.
    pub(super) fn library(&self) -> &'static Library {
        self.library
    }

    /// Its functions by name, if all of them are as written.
    ///
    /// # Errors
    ///
    /// One is not.
    pub(super) fn checked(&self, elf: &Elf<'_>) -> Result<HashMap<String, u64>, String> {
        match self.functions.iter().find(|function| !function.is_in(elf)) {
            Some(Function { name, address, .. }) => Err(format!(
                "by its build id it is {}, but the code of {name} at {address:#x} is not what is known of that",
                self.program
            )),
            None => Ok(self.functions.iter().map(|function| (function.name.to_owned(), function.address)).collect()),
        }
    }

    /// Makes the entry of a file, and says what could not be found in it.
    ///
    /// # Errors
    ///
    /// The file cannot be read, has no build id, or not all functions that are needed could be found.
    pub fn make(file: &Path, program: &str) -> Result<(Self, Vec<String>), String> {
        let data = fs::read(file).map_err(|error| error.to_string())?;
        let elf = object::File::parse(&*data).map_err(|error| error.to_string())?;
        let build_id = elf.build_id().ok().flatten().ok_or("it has no build id by which it could be known again")?;
        let Findings { functions, undecided } = finder::find(&elf)?;
        let library = LIBRARIES.iter().find(|library| library.name == "openssl").ok_or("no such library")?;
        if library.needs.iter().any(|need| functions.iter().all(|(name, _)| name != need)) {
            return Err(undecided.join("\n"));
        }
        let functions = functions.into_iter().map(|(name, address)| {
            let code = elf.sections().find_map(|section| section.data_range(address, CODE).ok().flatten());
            let code = code.ok_or_else(|| format!("{name} lies at the end of its section"))?;
            Ok(Function { name, address, code: code.to_owned() })
        });
        let functions = functions.collect::<Result<_, String>>()?;
        Ok((Self { program: program.to_owned(), build_id: build_id.to_owned(), library, functions }, undecided))
    }
}

impl fmt::Display for Entry {
    /// As it is written in a file of signatures.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "- program: {}", serde_json::Value::from(self.program.as_str()))?;
        writeln!(f, "  build_id: \"{}\"", digits(&self.build_id))?;
        writeln!(f, "  library: {}\n  functions:", self.library.name)?;
        self.functions.iter().try_for_each(|Function { name, address, code }| {
            writeln!(f, "    {name}: {{at: {address:#x}, code: \"{}\"}}", digits(code))
        })
    }
}

fn digits(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn bytes(digits: &str) -> Option<Vec<u8>> {
    let pairs = digits.as_bytes().chunks(2);
    let pair = |pair: &[u8]| match pair {
        [high, low] => Some((char::from(*high).to_digit(16)? << 4 | char::from(*low).to_digit(16)?).to_le_bytes()[0]),
        _ => None,
    };
    pairs.map(pair).collect()
}

#[cfg(test)]
mod tests;
