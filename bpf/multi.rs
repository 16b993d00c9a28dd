//! Probes at many places by one link (`uprobe_multi`, Linux 6.6).
//!
//! A probe that is a perf event of its own costs the kernel a grace period when it is closed, one after another, and
//! needs `CAP_SYS_ADMIN`; one link for all places of a file costs one, and needs `CAP_BPF` and `CAP_PERFMON`. The
//! release of aya that the toolchain at hand compiles has no such links, so the programs are loaded here, from what
//! aya-obj makes of the object, beside the maps that aya has made.
#![expect(unsafe_code, reason = "programs are loaded and attached by system calls that take addresses")]

use std::{
    collections::HashMap,
    ffi::CString,
    fs::File,
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use aya_obj::{Features, Function, Object, btf::Btf};
use zerocopy::{Immutable, IntoBytes};

/// `BPF_PROG_TYPE_KPROBE`, of which probes in programs are a kind.
const KPROBE: u32 = 2;
/// `BPF_TRACE_UPROBE_MULTI`.
const UPROBE_MULTI: u32 = 48;
/// `BPF_F_UPROBE_MULTI_RETURN`.
const RETURN: u32 = 1;
/// Room for the verifier's words about a program that it refuses.
const LOG_BYTES: usize = 64 << 10;

/// Commands of bpf(2).
#[derive(Clone, Copy)]
enum Command {
    LoadProgram = 5,
    LoadBtf = 18,
    CreateLink = 28,
}

/// `bpf_attr` of `BPF_PROG_LOAD`, as far as it is used.
#[derive(Default, IntoBytes, Immutable)]
#[repr(C)]
struct LoadProgram {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
    prog_btf_fd: u32,
    func_info_rec_size: u32,
    func_info: u64,
    func_info_cnt: u32,
    line_info_rec_size: u32,
    line_info: u64,
    line_info_cnt: u32,
    attach_btf_id: u32,
}

/// That of `BPF_BTF_LOAD`.
#[derive(Default, IntoBytes, Immutable)]
#[repr(C)]
struct LoadBtf {
    btf: u64,
    btf_log_buf: u64,
    btf_size: u32,
    btf_log_size: u32,
    btf_log_level: u32,
    pad: u32,
}

/// That of `BPF_LINK_CREATE` for many places.
#[derive(Default, IntoBytes, Immutable)]
#[repr(C)]
struct CreateLink {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
    path: u64,
    offsets: u64,
    ref_ctr_offsets: u64,
    cookies: u64,
    cnt: u32,
    multi_flags: u32,
    pid: u32,
    pad: u32,
}

/// Why programs for many places cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum MultiError {
    /// The object cannot be made fit for this kernel.
    #[error("cannot prepare the programs: {0}")]
    Object(String),
    /// A map of the object was not made.
    #[error("there is no map `{0}`")]
    NoMap(String),
    /// The kernel refuses a program.
    #[error("the kernel refuses `{program}`: {source}{log}")]
    Program {
        /// Its name in the object.
        program: String,
        /// The kernel's answer.
        source: io::Error,
        /// The verifier's last words.
        log: String,
    },
    /// The kernel refuses the type information of the programs.
    #[error("the kernel refuses the programs' type information: {0}")]
    Btf(#[source] io::Error),
    /// This kernel has no such links.
    #[error("no uprobe_multi, which Linux 6.6 has")]
    Unsupported,
}

/// Loaded programs. They stay as long as this or a link does.
#[derive(Debug)]
pub struct MultiPrograms {
    programs: HashMap<String, OwnedFd>,
}

impl MultiPrograms {
    /// Loads the named programs of the object, on maps that exist already.
    ///
    /// # Errors
    ///
    /// The kernel has no such links, or refuses a program.
    pub fn load(
        object: &[u8],
        kernel: &Btf,
        features: &Features,
        maps: &HashMap<String, BorrowedFd<'_>>,
        names: &[&str],
    ) -> Result<Self, MultiError> {
        let object_error = |error: &dyn std::fmt::Display| MultiError::Object(error.to_string());
        let mut object = Object::parse(object).map_err(|e| object_error(&e))?;
        let btf = match features.btf() {
            Some(features) => object.fixup_and_sanitize_btf(features).map_err(|e| object_error(&e))?.map(Btf::to_bytes),
            None => None,
        };
        let btf = btf.map(|bytes| load_btf(&bytes)).transpose().map_err(MultiError::Btf)?;
        object.relocate_btf(kernel).map_err(|e| object_error(&e))?;
        let declared = std::mem::take(&mut object.maps);
        let fd_of = |name: &str| maps.get(name).map(BorrowedFd::as_raw_fd);
        let made: Vec<(&str, RawFd, &aya_obj::Map)> =
            declared.iter().filter_map(|(name, map)| Some((name.as_str(), fd_of(name)?, map))).collect();
        if let Some(missing) = declared.keys().find(|name| !maps.contains_key(*name)) {
            return Err(MultiError::NoMap(missing.clone()));
        }
        let text = object.functions.keys().map(|(section, _)| *section).collect();
        object.relocate_maps(made.into_iter(), &text).map_err(|e| object_error(&e))?;
        object.relocate_calls(&text).map_err(|e| object_error(&e))?;
        object.sanitize_functions(features);
        let mut programs = HashMap::new();
        for name in names {
            let program = object.programs.get(*name).ok_or_else(|| object_error(&format!("there is no `{name}`")))?;
            let function = &object.functions[&program.function_key()];
            programs.insert((*name).to_owned(), load_program(name, &program.license, function, btf.as_ref())?);
        }
        let programs = Self { programs };
        if programs.is_supported() { Ok(programs) } else { Err(MultiError::Unsupported) }
    }

    /// Asked for places in a folder, a kernel that knows these links says that it is not a file of the right kind.
    fn is_supported(&self) -> bool {
        let Some(program) = self.programs.keys().next() else { return true };
        let refused = self.attach(program, Path::new("/"), &[0], 0, false);
        refused.is_err_and(|error| error.raw_os_error() == Some(libc::EBADF))
    }

    /// Runs a program whenever any process comes to one of the places of a file, given by their offsets in it; with
    /// `returns`, whenever the functions that begin there return. It can ask for the cookie. The probes are gone when the descriptor is closed.
    ///
    /// # Errors
    ///
    /// There is no such program, or the kernel refuses a place.
    pub fn attach(
        &self,
        program: &str,
        file: &Path,
        offsets: &[u64],
        cookie: u64,
        returns: bool,
    ) -> io::Result<OwnedFd> {
        let program = self.programs.get(program).ok_or(io::ErrorKind::NotFound)?;
        let path = CString::new(file.as_os_str().as_bytes())?;
        let cookies = vec![cookie; offsets.len()];
        bpf(
            Command::CreateLink,
            &CreateLink {
                prog_fd: number(program.as_fd()),
                attach_type: UPROBE_MULTI,
                path: address(path.as_bytes_with_nul()),
                offsets: address(offsets),
                cookies: address(&cookies),
                cnt: u32::try_from(offsets.len()).map_err(io::Error::other)?,
                multi_flags: if returns { RETURN } else { 0 },
                ..CreateLink::default()
            },
        )
    }
}

fn load_btf(bytes: &[u8]) -> io::Result<OwnedFd> {
    let btf_size = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    bpf(Command::LoadBtf, &LoadBtf { btf: address(bytes), btf_size, ..LoadBtf::default() })
}

fn load_program(
    name: &str,
    license: &CString,
    function: &Function,
    btf: Option<&OwnedFd>,
) -> Result<OwnedFd, MultiError> {
    let (functions, lines) = (function.func_info.func_info_bytes(), function.line_info.line_info_bytes());
    let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let mut attributes = LoadProgram {
        prog_type: KPROBE,
        insn_cnt: small(function.instructions.len()),
        insns: address(&function.instructions),
        license: address(license.as_bytes_with_nul()),
        expected_attach_type: UPROBE_MULTI,
        ..LoadProgram::default()
    };
    for (to, from) in attributes.prog_name[..15].iter_mut().zip(name.bytes()) {
        *to = from;
    }
    if let Some(btf) = btf {
        attributes.prog_btf_fd = number(btf.as_fd());
        attributes.func_info = address(&functions);
        attributes.func_info_cnt = small(function.func_info.len());
        attributes.func_info_rec_size = small(function.func_info_rec_size);
        attributes.line_info = address(&lines);
        attributes.line_info_cnt = small(function.line_info.len());
        attributes.line_info_rec_size = small(function.line_info_rec_size);
    }
    let first = bpf(Command::LoadProgram, &attributes);
    first.or_else(|source| {
        // Once more, to hear why: to be told costs time that a program which is taken need not spend.
        let mut log = vec![0_u8; LOG_BYTES];
        (attributes.log_level, attributes.log_size, attributes.log_buf) = (1, small(LOG_BYTES), address_mut(&mut log));
        bpf(Command::LoadProgram, &attributes).map_err(|_| {
            let said = String::from_utf8_lossy(&log);
            let said = said.trim_end_matches('\0').lines().rev().take(3).collect::<Vec<_>>();
            let log = said.iter().rev().fold(String::new(), |all, line| all + "; " + line);
            MultiError::Program { program: name.to_owned(), source, log }
        })
    })
}

/// Where a value lies, as the kernel wants to be told. Whoever calls keeps the value until the system call is over.
fn address<T>(values: &[T]) -> u64 {
    values.as_ptr().expose_provenance() as u64
}

fn address_mut(values: &mut [u8]) -> u64 {
    values.as_mut_ptr().expose_provenance() as u64
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    u32::try_from(fd.as_raw_fd()).expect("a descriptor is not negative")
}

fn bpf<T: IntoBytes + Immutable>(command: Command, attributes: &T) -> io::Result<OwnedFd> {
    let bytes = attributes.as_bytes();
    // SAFETY: the kernel reads as many bytes of the attributes as it is told that there are. The addresses in them are
    // of slices that the callers hold, with the lengths that stand beside them; of these it writes only to the log, which
    // is exclusively borrowed there.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command as libc::c_int, bytes.as_ptr(), bytes.len()) };
    let fd = RawFd::try_from(result).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: each of these commands returns a new descriptor, which nobody else knows of.
    Ok(OwnedFd::from(unsafe { File::from_raw_fd(fd) }))
}
