//! Finds TLS functions in a file without symbols, by what cannot be mistaken: the reasons of the errors that they raise,
//! with the name of their source file, and whom they call. What is not certain is not told.
//!
//! The rules know `BoringSSL` and OpenSSL 3, both of which hand the name of the source file on with each error. They
//! were read off builds that have symbols, and must find there what the symbols say.

use std::fmt::Display;

use memchr::{memmem, memrchr};
use object::{Object, ObjectSection as _, SectionKind};

use self::code::{Code, Function};

mod code;

/// Functions lie so close to those of the same source file.
const NEAR: u64 = 64 << 10;

/// What was found, and why the rest was not.
#[derive(Debug, Default)]
pub struct Findings {
    /// Functions by name, with their addresses.
    pub functions: Vec<(&'static str, u64)>,
    /// What could not be decided.
    pub undecided: Vec<String>,
}

impl Findings {
    fn take(&mut self, name: &'static str, found: Result<u64, String>) -> Option<u64> {
        match found {
            Ok(address) => {
                self.functions.push((name, address));
                Some(address)
            }
            Err(why) => {
                self.undecided.push(format!("{name}: {why}"));
                None
            }
        }
    }
}

/// Looks for the functions of `BoringSSL` or OpenSSL.
///
/// # Errors
///
/// The file has neither, or so that nothing can be told of it.
pub fn find(elf: &object::File<'_>) -> Result<Findings, String> {
    if elf.architecture() != object::Architecture::X86_64 {
        return Err("functions are found in code for x86-64 only".to_owned());
    }
    let code = Code::of(elf)?;
    let boringssl = Source::of(elf, &code, "ssl_lib.cc").map(|source| boringssl(&source));
    boringssl.or_else(|no_boringssl| match Source::of(elf, &code, "ssl_lib.c") {
        Ok(source) => Ok(openssl(elf, &source)),
        Err(no_openssl) => Err(format!("no BoringSSL: {no_boringssl}; no OpenSSL: {no_openssl}")),
    })
}

/// The functions around those that raise errors with the name of one source file.
struct Source<'a> {
    texts: Vec<(u64, &'a [u8])>,
    name: u64,
    functions: Vec<Function>,
}

/// An error that a function raises, as far as its arguments are constants: its reason stands before the name of the
/// file, the name of the function behind the line.
#[derive(Clone, Copy)]
struct Raised {
    reason: Option<u64>,
    function: Option<u64>,
}

impl<'a> Source<'a> {
    fn of(elf: &object::File<'a>, code: &Code<'_>, file: &str) -> Result<Self, String> {
        let mut texts = Vec::new();
        for section in elf.sections() {
            if matches!(section.kind(), SectionKind::ReadOnlyData | SectionKind::ReadOnlyString) {
                texts.push((section.address(), section.data().map_err(|error| error.to_string())?));
            }
        }
        let names = texts.iter().flat_map(|(at, bytes)| texts_with_end(*at, bytes, file));
        let mut used: Vec<(u64, Vec<u64>)> =
            names.map(|name| (name, code.references(name))).filter(|(_, references)| !references.is_empty()).collect();
        let (Some((name, references)), true) = (used.pop(), used.is_empty()) else {
            return Err(match used.len() {
                0 => format!("no code refers to the name of {file}"),
                _ => format!("there are several files {file} that code refers to"),
            });
        };
        let (first, last) = references.iter().fold((u64::MAX, 0), |(low, high), at| (low.min(*at), high.max(*at)));
        let starts = code.starts(first.saturating_sub(NEAR), last.saturating_add(NEAR));
        Ok(Self { texts, name, functions: starts.iter().map(|start| code.function(*start)).collect() })
    }

    fn raised(&self, function: &Function) -> impl Iterator<Item = Raised> {
        let name = self.name;
        function.handed.iter().filter_map(move |handed| {
            let file = handed.iter().position(|argument| *argument == Some(name))?;
            let at = |place: Option<usize>| place.and_then(|place| handed.get(place).copied().flatten());
            Some(Raised { reason: at(file.checked_sub(1)), function: at(Some(file + 2)) })
        })
    }

    fn raises(&self, function: &Function, reason: u64) -> bool {
        self.raised(function).any(|raised| raised.reason == Some(reason))
    }

    /// Whether the function says its own name with an error.
    fn is_called(&self, function: &Function, name: &str) -> bool {
        self.raised(function).filter_map(|raised| self.text(raised.function?)).any(|text| text == name.as_bytes())
    }

    /// The text that begins at an address.
    fn text(&self, address: u64) -> Option<&'a [u8]> {
        self.texts.iter().find_map(|(at, bytes)| {
            let text = bytes.get(usize::try_from(address.checked_sub(*at)?).ok()?..)?;
            Some(&text[..memchr::memchr(0, text)?])
        })
    }

    /// The one function of which something holds.
    fn only(&self, what: impl Display, holds: impl Fn(&Function) -> bool) -> Result<&Function, String> {
        let mut found = self.functions.iter().filter(|function| holds(function));
        match (found.next(), found.count()) {
            (Some(function), 0) => Ok(function),
            (None, _) => Err(format!("no function {what}")),
            (Some(_), more) => Err(format!("{} functions, each of which {what}", more + 1)),
        }
    }
}

/// Where the texts begin that end in this, of texts that end in zeros.
fn texts_with_end(at: u64, bytes: &[u8], end: &str) -> Vec<u64> {
    let end = [end.as_bytes(), b"\0"].concat();
    let begin = |place: usize| memrchr(0, &bytes[..place]).map_or(0, |zero| zero + 1);
    memmem::find_iter(bytes, &end).map(|place| at + begin(place) as u64).collect()
}

/// Reasons of `BoringSSL`'s errors, which stay the same from version to version.
mod reason {
    pub const SHOULD_NOT_HAVE_BEEN_CALLED: u64 = 66;
    pub const BAD_LENGTH: u64 = 111;
    pub const CONNECTION_TYPE_NOT_SET: u64 = 134;
    pub const HANDSHAKE_FAILURE: u64 = 215;
    pub const UNINITIALIZED: u64 = 226;
}

/// Where its table of a protocol's functions has the one that frees an object.
const METHOD_FREE: u64 = 0x10;

fn boringssl(source: &Source<'_>) -> Findings {
    use reason::{BAD_LENGTH, CONNECTION_TYPE_NOT_SET, HANDSHAKE_FAILURE, SHOULD_NOT_HAVE_BEEN_CALLED, UNINITIALIZED};
    let mut findings = Findings::default();
    let raises = |function: &Function, reason| source.raises(function, reason);
    let write = source.only("raises BAD_LENGTH and UNINITIALIZED, as it does", |function| {
        raises(function, BAD_LENGTH) && raises(function, UNINITIALIZED)
    });
    // What both functions that read call; a shutdown calls it too, and does not mind QUIC.
    let inside = source.only("raises HANDSHAKE_FAILURE and UNINITIALIZED, as what it calls does", |function| {
        raises(function, HANDSHAKE_FAILURE) && raises(function, UNINITIALIZED) && !raises(function, BAD_LENGTH)
    });
    let read = inside.and_then(|inside| {
        // SSL_peek leaves everything as it was.
        source.only("reads, refuses QUIC, and takes away what it has read", |function| {
            function.calls.contains(&inside.start)
                && raises(function, SHOULD_NOT_HAVE_BEEN_CALLED)
                && !raises(function, UNINITIALIZED)
                && function.writes
        })
    });
    // SSL_connect and SSL_accept may have it inside; SSL_write calls it.
    let handshake = write.clone().and_then(|write| {
        source.only("raises CONNECTION_TYPE_NOT_SET and is called by SSL_write", |function| {
            raises(function, CONNECTION_TYPE_NOT_SET) && write.calls.contains(&function.start)
        })
    });
    let address = |found: Result<&Function, String>| found.map(|function| function.start);
    findings.take("SSL_read", address(read));
    findings.take("SSL_write", address(write));
    if let Some(handshake) = findings.take("SSL_do_handshake", address(handshake)) {
        findings.take("SSL_free", boringssl_free(source, handshake));
    }
    findings
}

/// The functions that free an object lie so close before the handshake.
const NEAR_FREE: u64 = 16 << 10;

/// What frees an object, before the handshake in the source file: the function around the destructor where there is one,
/// else the destructor itself, which has the object as its first argument too.
fn boringssl_free(source: &Source<'_>, handshake: u64) -> Result<u64, String> {
    let near = |function: &Function| function.start < handshake && handshake - function.start < NEAR_FREE;
    let destructor = source.only("calls the method that frees an object, and no other method", |function| {
        near(function) && function.methods.iter().eq([&METHOD_FREE]) && source.raised(function).next().is_none()
    })?;
    let around = source.only("", |function| {
        near(function)
            && function.ignores_null
            && function.calls.contains(&destructor.start)
            && function.calls.len() == 2
    });
    Ok(around.map_or(destructor.start, |around| around.start))
}

fn openssl(elf: &object::File<'_>, source: &Source<'_>) -> Findings {
    let mut findings = Findings::default();
    let named = |name: &str| {
        let function = source.only(format_args!("raises an error by the name {name}"), |f| source.is_called(f, name));
        function.map(|function| function.start)
    };
    let read = findings.take("SSL_read", named("SSL_read"));
    let write = findings.take("SSL_write", named("SSL_write"));
    // Those that choose a side first may have it inside of them; they write the choice down.
    let handshake = source.only("raises an error by the name SSL_do_handshake, and changes nothing", |function| {
        source.is_called(function, "SSL_do_handshake") && !function.writes
    });
    findings.take("SSL_do_handshake", handshake.map(|function| function.start));
    // Those that leave the count in memory raise no errors: each is the other caller of what does the work, which may be
    // part of the known one as well.
    let other = |inside: &str, known: Option<u64>| {
        let known = known.ok_or("the function beside it was not found")?;
        let inside = source.only(format_args!("raises errors by the name {inside} alone"), |function| {
            function.start != known && source.is_called(function, inside)
        })?;
        let other = source.only("calls what does the work, besides the one that is known", |function| {
            function.calls.contains(&inside.start) && known != function.start
        });
        other.map(|function| function.start)
    };
    findings.take("SSL_read_ex", other("ssl_read_internal", read));
    // From 3.3 on it is another function, with other arguments.
    let write_ex = match minor_version(elf) {
        Some(..3) => "SSL_write_ex",
        Some(_) => "SSL_write_ex2",
        None => "SSL_write_ex, or SSL_write_ex2",
    };
    let found = other("ssl_write_internal", write);
    let known = minor_version(elf).ok_or_else(|| "the version of OpenSSL is not known".to_owned());
    findings.take(write_ex, known.and(found));
    findings.take("SSL_free", Err("there is no rule for OpenSSL's".to_owned()));
    findings
}

/// `x` of the OpenSSL 3.x in the file.
fn minor_version(elf: &object::File<'_>) -> Option<u32> {
    let sections = elf.sections().filter(|section| section.kind() != SectionKind::Text);
    let mut versions = sections.filter_map(|section| {
        let bytes = section.data().ok()?;
        let digits = &bytes[memmem::find(bytes, b"OpenSSL 3.")? + 10..];
        let len = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
        std::str::from_utf8(&digits[..len]).ok()?.parse().ok()
    });
    versions.next()
}
