//! Loads the programs, attaches those that look at the whole machine, and gives out their maps.

use std::{
    io::Read as _,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use aya::{
    Btf, Ebpf, EbpfLoader,
    maps::{Array, ArrayOfMaps, HashMap, Map, MapData, PerCpuArray},
    programs::{
        BtfTracePoint, Iter, ProgramError, RawTracePoint, UProbe,
        uprobe::{UProbeAttachLocation, UProbeLink, UProbeScope},
    },
};
use ringtap_bpf::{
    abi::{Activity, Counters, LostEnd, MappedFile, SHARDS_MAX, Stream},
    multi::MultiPrograms,
};
use zerocopy::{FromBytes as _, IntoBytes as _};

use super::{hold, libraries};

/// Why the capture cannot start, with the remedy.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The kernel does not describe its own types.
    #[error(
        "this kernel has no type information at /sys/kernel/btf/vmlinux; ringtap needs one built with CONFIG_DEBUG_INFO_BTF (5.10 or newer)"
    )]
    NoBtf(#[source] aya::BtfError),
    /// The process may not use BPF.
    #[error(
        "not allowed to load BPF programs ({0}); run as root, or with CAP_BPF, CAP_PERFMON and CAP_SYS_PTRACE, before Linux 6.6 also CAP_SYS_ADMIN"
    )]
    NotAllowed(String),
    /// A program that nothing can replace was refused.
    #[error("the kernel refuses the program `{program}`: {reason}")]
    Program {
        /// Its name in the object.
        program: &'static str,
        /// The kernel's words.
        reason: String,
    },
    /// The programs or maps could not be set up.
    #[error("cannot set up the capture in the kernel: {0}")]
    Load(#[from] aya::EbpfError),
    /// A map is not as the programs declare it.
    #[error("cannot use a map of the capture: {0}")]
    Map(#[from] aya::maps::MapError),
    /// A descriptor could not be had.
    #[error("cannot open what the capture needs: {0}")]
    Io(#[from] std::io::Error),
}

/// What the programs are told before they are loaded.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Bits of [`ringtap_bpf::abi::wanted`].
    pub wanted: u32,
    /// Rings, a power of two.
    pub shards: u32,
    /// Bytes of one ring, a power of two.
    pub ring_bytes: u32,
}

/// Bytes of the ring of process events.
pub const CONTROL_BYTES: u32 = 1 << 20;

/// Why probes that are told something of their file cannot be attached.
pub const NO_COOKIES: &str = "its probes need Linux 6.6 or newer";

/// Programs that look at the whole machine: name, tracepoint, and what is lost without it.
const TRACEPOINTS: [(&str, &str, Option<&str>); 5] = [
    ("handle_socket_state", "inet_sock_set_state", None),
    ("handle_destroy", "tcp_destroy_sock", Some("a connection whose end is missed stays in the tables for an hour")),
    ("handle_exec", "sched_process_exec", Some("new programs are found only when they map a library")),
    ("handle_fork", "sched_process_fork", Some("children of excluded processes are not excluded")),
    (
        "handle_exit",
        "sched_process_exit",
        Some(
            "ended threads stay in the tables; once those of TLS calls are full, further threads are counted, not captured",
        ),
    ),
];
/// What follows requests of `io_uring`: where they are handed in, and where they complete. Of each, what kernels have
/// called the tracepoint, and what it has told of: the first pair that is taken is the right one.
const REQUESTS: [&[(&str, &str)]; 2] = [
    &[("handle_submit", "io_uring_submit_req"), ("handle_submit", "io_uring_submit_sqe")],
    &[("handle_complete_fields", "io_uring_complete"), ("handle_complete", "io_uring_complete")],
];
/// The end of each system call: it comes so often that its program gets typed pointers, which it may follow by itself.
const SYSTEM_CALLS: (&str, &str) = ("handle_sys_exit", "sys_exit");

/// The loaded capture.
pub struct Kernel {
    ebpf: Ebpf,
    /// Kept for its attachment.
    /// Not used again: its links live as long as it does.
    cookie: Option<Ebpf>,
    rings: Vec<MapData>,
    /// The programs of probes, where one link serves many places.
    multi: Option<MultiPrograms>,
    /// Features that this kernel lacks, each with what follows from it.
    pub missing: Vec<String>,
}

/// Probes that are gone when this is dropped.
pub enum Probes {
    /// All places of a program in a file.
    Many(OwnedFd),
    /// One place.
    One(UProbeLink),
}

/// Maps that the capture thread uses.
pub struct StreamMaps {
    wanted: Array<MapData, u32>,
    skip: HashMap<MapData, [u8; 16], u64>,
    counters: PerCpuArray<MapData, [u64; size_of::<Counters>() / 8]>,
    lost_ends: HashMap<MapData, u64, [u64; size_of::<LostEnd>() / 8]>,
    quic: HashMap<MapData, u32, u64>,
    /// What was read of it last.
    quic_known: std::collections::HashMap<u32, u64>,
}

/// Maps that the prober uses: what is known of processes and files.
pub struct ProcessMaps {
    excluded: HashMap<MapData, u32, u32>,
    activity: HashMap<MapData, u32, [u64; size_of::<Activity>() / 8]>,
    files: HashMap<MapData, [u64; 2], u8>,
    held: HeldMap,
    held_fd: OwnedFd,
}

/// Processes that were stopped, and when, in boot time.
pub type HeldMap = HashMap<MapData, u32, u64>;

impl Kernel {
    /// Loads all programs and attaches none.
    ///
    /// # Errors
    ///
    /// The kernel lacks what nothing can replace, or the process may not load programs.
    pub fn load(settings: Settings) -> Result<Self, KernelError> {
        let btf = Btf::from_sys_fs().map_err(KernelError::NoBtf)?;
        let (self_tgid, shard_mask) = (std::process::id(), settings.shards - 1);
        let mut ebpf = EbpfLoader::new()
            .btf(Some(&btf))
            .override_global("self_tgid", &self_tgid, true)
            .override_global("wanted", &settings.wanted, true)
            .override_global("shard_mask", &shard_mask, true)
            .map_max_entries("control", CONTROL_BYTES)
            .load(ringtap_bpf::capture_object())
            .map_err(explain_load)?;
        let rings = make_rings(&mut ebpf, settings)?;
        let mut kernel = Self { ebpf, cookie: None, rings, multi: None, missing: Vec::new() };
        kernel.load_programs(&btf)?;
        kernel.load_probes(&btf)?;
        match load_cookie(&btf) {
            Ok(cookie) => kernel.cookie = Some(cookie),
            Err(reason) => kernel.missing.push(format!("socket cookies ({reason}): connection ids are our own")),
        }
        Ok(kernel)
    }

    /// Whether each probe is a perf event, which asks for more than links of many do.
    #[must_use]
    pub fn has_perf_events(&self) -> bool {
        self.multi.is_none()
    }

    fn load_programs(&mut self, btf: &Btf) -> Result<(), KernelError> {
        for (name, _, without) in TRACEPOINTS {
            let loaded = self.program::<RawTracePoint>(name).and_then(|p| p.load().map_err(explain));
            self.lose_or_fail(name, without, loaded)?;
        }
        let (name, tracepoint) = SYSTEM_CALLS;
        let loaded = self.program::<BtfTracePoint>(name).and_then(|p| p.load(tracepoint, btf).map_err(explain));
        self.lose_or_fail(name, None, loaded)?;
        let loaded = self.program::<Iter>("handle_existing").and_then(|p| p.load("tcp", btf).map_err(explain));
        self.lose_or_fail(
            "handle_existing",
            Some("connections from before the start are found with their next call"),
            loaded,
        )
    }

    /// The programs of probes: for links of many places where the kernel has them, else for one perf event each.
    fn load_probes(&mut self, btf: &Btf) -> Result<(), KernelError> {
        let names = libraries::programs();
        let maps = self.ebpf.maps().filter_map(|(name, map)| Some((name.to_owned(), map_fd(map)?))).collect();
        match MultiPrograms::load(ringtap_bpf::capture_object(), btf, aya::features(), &maps, &names) {
            Ok(programs) => self.multi = Some(programs),
            Err(reason) => {
                self.missing.push(format!(
                    "one link for many probes ({reason}): they are removed slowly, need CAP_SYS_ADMIN, and rustls has none"
                ));
                for name in names.into_iter().filter(|name| !libraries::asks_for_cookie(name)) {
                    let loaded = self.program::<UProbe>(name).and_then(|p| p.load().map_err(explain));
                    self.lose_or_fail(name, None, loaded)?;
                }
            }
        }
        Ok(())
    }

    fn lose_or_fail(
        &mut self,
        program: &'static str,
        without: Option<&str>,
        result: Result<(), String>,
    ) -> Result<(), KernelError> {
        match (result, without) {
            (Ok(()), _) => Ok(()),
            (Err(reason), Some(without)) => {
                self.missing.push(format!("{program} ({reason}): {without}"));
                Ok(())
            }
            (Err(reason), None) => Err(KernelError::Program { program, reason }),
        }
    }

    fn program<'a, P>(&'a mut self, name: &str) -> Result<&'a mut P, String>
    where
        &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = ProgramError>,
    {
        self.ebpf.program_mut(name).ok_or("not in the object")?.try_into().map_err(explain)
    }

    /// Attaches the programs that look at the whole machine, then takes note of what exists already.
    ///
    /// # Errors
    ///
    /// A tracepoint that nothing can replace cannot be attached.
    pub fn start(&mut self) -> Result<(), KernelError> {
        for (name, tracepoint, without) in TRACEPOINTS {
            let attached =
                self.program::<RawTracePoint>(name).and_then(|p| p.attach(tracepoint).map_err(explain)).map(|_| ());
            self.lose_or_fail(name, without, attached)?;
        }
        let (name, _) = SYSTEM_CALLS;
        let attached = self.program::<BtfTracePoint>(name).and_then(|p| p.attach().map_err(explain)).map(|_| ());
        self.lose_or_fail(name, None, attached)?;
        if let Err(reason) = self.follow_requests() {
            self.missing.push(format!(
                "requests of io_uring ({reason}): of what they move on sockets the length is known, and no byte"
            ));
        }
        // Listeners first, then connections: the second pass tells servers' connections by their port.
        for _ in 0..2 {
            if let Err(reason) = self.iterate() {
                self.missing
                    .push(format!("handle_existing ({reason}): older connections are found with their next call"));
                break;
            }
        }
        Ok(())
    }

    fn follow_requests(&mut self) -> Result<(), String> {
        for ways in REQUESTS {
            let mut taken = Err(String::new());
            for (name, tracepoint) in ways {
                taken = taken.or_else(|_: String| self.follow(name, tracepoint));
            }
            taken?;
        }
        Ok(())
    }

    /// Loads a program, unless that is done, and attaches it.
    fn follow(&mut self, name: &str, tracepoint: &str) -> Result<(), String> {
        let program = self.program::<RawTracePoint>(name)?;
        if program.fd().is_err() {
            program.load().map_err(explain)?;
        }
        program.attach(tracepoint).map(|_| ()).map_err(explain)
    }

    fn iterate(&mut self) -> Result<(), String> {
        let program = self.program::<Iter>("handle_existing")?;
        let id = program.attach().map_err(explain)?;
        let link = program.take_link(id).map_err(explain)?;
        let mut file = link.into_file().map_err(explain)?;
        file.read_to_end(&mut Vec::new()).map(|_| ()).map_err(explain)
    }

    /// Attaches a program at offsets of a file, for all processes, with what it will find there as its cookie.
    ///
    /// # Errors
    ///
    /// The kernel refuses a probe, or the file is gone. None stays.
    pub fn attach_probes(
        &mut self,
        program: &str,
        file: &Path,
        offsets: &[u64],
        cookie: u64,
    ) -> Result<Vec<Probes>, String> {
        if let Some(programs) = &self.multi {
            let link = programs.attach(program, file, offsets, cookie, program == libraries::RETURN);
            return Ok(vec![Probes::Many(link.map_err(|error| error.to_string())?)]);
        }
        if libraries::asks_for_cookie(program) {
            return Err(NO_COOKIES.to_owned());
        }
        let probe = self.program::<UProbe>(program)?;
        let mut links = Vec::new();
        for offset in offsets {
            let place = UProbeAttachLocation::AbsoluteOffset(*offset);
            let id = probe.attach(place, file, UProbeScope::AllProcesses).map_err(explain)?;
            links.push(Probes::One(probe.take_link(id).map_err(explain)?));
        }
        Ok(links)
    }

    /// Descriptors of the shards' rings, and of the wake flags.
    ///
    /// # Errors
    ///
    /// A descriptor cannot be duplicated.
    pub fn ring_fds(&mut self) -> Result<(Vec<OwnedFd>, OwnedFd), KernelError> {
        let rings = self.rings.iter().map(|ring| ring.fd().as_fd().try_clone_to_owned()).collect::<Result<_, _>>()?;
        let Some(Map::Array(wake)) = self.ebpf.map("wake") else { unreachable!("the object declares it so") };
        Ok((rings, wake.fd().as_fd().try_clone_to_owned()?))
    }

    /// Descriptor of the ring of process events.
    ///
    /// # Errors
    ///
    /// It cannot be duplicated.
    pub fn control_fd(&mut self) -> Result<OwnedFd, KernelError> {
        let Some(Map::RingBuf(control)) = self.ebpf.map("control") else { unreachable!("the object declares it so") };
        Ok(control.fd().as_fd().try_clone_to_owned()?)
    }

    /// The maps of the capture thread; once.
    ///
    /// # Errors
    ///
    /// They are not as declared.
    pub fn take_stream_maps(&mut self) -> Result<StreamMaps, KernelError> {
        Ok(StreamMaps {
            // The one variable of the programs that can change while they run.
            wanted: self.take(".data")?.try_into()?,
            skip: self.take("skip_until")?.try_into()?,
            counters: self.take("counters")?.try_into()?,
            lost_ends: self.take("lost_ends")?.try_into()?,
            quic: self.take("quic_bytes")?.try_into()?,
            quic_known: std::collections::HashMap::new(),
        })
    }

    /// The maps of the prober; once.
    ///
    /// # Errors
    ///
    /// They are not as declared.
    pub fn take_process_maps(&mut self) -> Result<ProcessMaps, KernelError> {
        let held = self.take("held")?;
        let held_fd = map_fd(&held).expect("a map of hashes has one").try_clone_to_owned()?;
        Ok(ProcessMaps {
            held_fd,
            held: held.try_into()?,
            excluded: self.take("excluded")?.try_into()?,
            activity: self.take("activity")?.try_into()?,
            files: self.take("mapped_files")?.try_into()?,
        })
    }

    fn take(&mut self, name: &str) -> Result<Map, KernelError> {
        let map = self.ebpf.take_map(name);
        map.ok_or_else(|| KernelError::Io(std::io::Error::other(format!("the object has no map `{name}`"))))
    }
}

impl StreamMaps {
    /// Which connections are wanted from now on, by bits of [`ringtap_bpf::abi::wanted`].
    pub fn want(&mut self, bits: u32) {
        if let Err(error) = self.wanted.set(0, bits, 0) {
            tracing::error!(%error, "the kernel goes on with the connections that were wanted before");
        }
    }

    /// Leaves payload of a stream below `offset` in the kernel. A full table forgets the oldest entries.
    pub fn skip_until(&mut self, stream: Stream, offset: u64) {
        let key: [u8; 16] = stream.as_bytes().try_into().expect("a stream has sixteen bytes");
        if let Err(error) = self.skip.insert(key, offset, 0) {
            tracing::debug!(%error, "cannot skip a stream; its payload is read and thrown away");
        }
    }

    /// Removes what was said of a connection that has ended.
    pub fn forget(&mut self, stream: Stream) {
        let key: [u8; 16] = stream.as_bytes().try_into().expect("a stream has sixteen bytes");
        // Absent for most connections.
        let _ = self.skip.remove(&key);
    }

    /// The ends of connections for which the ring had no room, each once.
    pub fn take_lost_ends(&mut self) -> Vec<(u64, LostEnd)> {
        let found: Vec<_> = self.lost_ends.iter().filter_map(Result::ok).collect();
        for (conn, _) in &found {
            // The programs write an end once; nobody else removes it.
            let _ = self.lost_ends.remove(conn);
        }
        let end = |words: [u64; size_of::<LostEnd>() / 8]| LostEnd::read_from_bytes(words.as_bytes()).ok();
        found.into_iter().filter_map(|(conn, words)| Some((conn, end(words)?))).collect()
    }

    /// Processes that have moved datagrams at the port of HTTP/3 since the last call, and how many bytes.
    pub fn take_quic(&mut self) -> Vec<(u32, u64)> {
        let found: std::collections::HashMap<u32, u64> = self.quic.iter().filter_map(Result::ok).collect();
        let more = |(tgid, bytes): (&u32, &u64)| {
            // Less than before: the entry was pushed out, and began anew.
            let known = self.quic_known.get(tgid).filter(|known| *known <= bytes);
            Some((*tgid, bytes - known.unwrap_or(&0))).filter(|(_, more)| *more > 0)
        };
        let moved = found.iter().filter_map(more).collect();
        self.quic_known = found;
        moved
    }

    /// What the programs counted so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let mut sum = Counters::default();
        for one in self.counters.get(&0, 0).iter().flat_map(|values| values.iter()) {
            sum.add(&Counters::read_from_bytes(one.as_bytes()).expect("as many words as counters"));
        }
        sum
    }
}

impl ProcessMaps {
    /// Excludes a process, by bits of [`ringtap_bpf::abi::exclude`].
    pub fn exclude(&mut self, tgid: u32, bits: u32) {
        if let Err(error) = self.excluded.insert(tgid, bits, 0) {
            tracing::warn!(tgid, %error, "cannot exclude a process in the kernel");
        }
    }

    /// Lets a mapped file be reported anew: it could not be looked at.
    pub fn report_again(&mut self, file: &MappedFile) {
        // Absent if the table was full.
        let _ = self.files.remove(&[file.device, file.inode]);
    }

    /// Lets files with this number be reported anew, on whatever device they are.
    pub fn report_inode_again(&mut self, inode: u64) {
        let keys: Vec<[u64; 2]> = self.files.keys().flatten().filter(|[_, known]| *known == inode).collect();
        for key in keys {
            let _ = self.files.remove(&key);
        }
    }

    /// What each process has moved so far.
    #[must_use]
    pub fn activity(&self) -> std::collections::HashMap<u32, Activity> {
        let known = self.activity.iter().flatten();
        known.filter_map(|(tgid, words)| Some((tgid, Activity::read_from_bytes(words.as_bytes()).ok()?))).collect()
    }

    /// A process has ended: nothing more comes of it.
    pub fn forget(&mut self, tgid: u32) {
        // Absent if it moved nothing.
        let _ = self.activity.remove(&tgid);
    }

    /// Begins to stop processes that bring new files.
    pub fn hold(&mut self) {
        hold::set(&mut self.held, true);
    }

    /// Stops no more processes, and lets go those that were.
    pub fn hold_no_more(&mut self) {
        hold::end(&mut self.held);
    }

    /// Lets a process go on that was stopped.
    pub fn let_go(&mut self, tgid: u32) {
        hold::let_go(&mut self.held, tgid);
    }

    /// The map of stopped processes, for whoever guards them.
    ///
    /// # Errors
    ///
    /// Its descriptor cannot be duplicated.
    pub fn held_fd(&self) -> std::io::Result<OwnedFd> {
        self.held_fd.try_clone()
    }
}

/// The descriptor of a map of the kinds that the programs declare.
fn map_fd(map: &Map) -> Option<BorrowedFd<'_>> {
    let (Map::Array(data)
    | Map::ArrayOfMaps(data)
    | Map::HashMap(data)
    | Map::LruHashMap(data)
    | Map::PerCpuArray(data)
    | Map::RingBuf(data)) = map
    else {
        return None;
    };
    Some(data.fd().as_fd())
}

fn make_rings(ebpf: &mut Ebpf, settings: Settings) -> Result<Vec<MapData>, KernelError> {
    assert!(
        settings.shards.is_power_of_two() && settings.shards as usize <= SHARDS_MAX,
        "checked by the configuration"
    );
    let outer = ebpf.map_mut("rings").ok_or_else(|| std::io::Error::other("the object has no map `rings`"))?;
    let mut outer: ArrayOfMaps<&mut MapData, MapData> = outer.try_into()?;
    let mut rings = Vec::new();
    for shard in 0..settings.shards {
        let kind = aya_obj::generated::bpf_map_type::BPF_MAP_TYPE_RINGBUF as u32;
        let definition = aya_obj::Map::new_from_params(kind, 0, 0, settings.ring_bytes, 0);
        let ring = MapData::create(definition, "ring", None)?;
        outer.set(shard, &ring, 0)?;
        rings.push(ring);
    }
    Ok(rings)
}

fn load_cookie(btf: &Btf) -> Result<Ebpf, String> {
    let mut ebpf = EbpfLoader::new().btf(Some(btf)).load(ringtap_bpf::cookie_object()).map_err(explain)?;
    let program: &mut BtfTracePoint =
        ebpf.program_mut("handle_cookie").ok_or("not in the object")?.try_into().map_err(explain)?;
    program.load("inet_sock_set_state", btf).map_err(explain)?;
    program.attach().map_err(explain)?;
    Ok(ebpf)
}

/// An error with its causes in one line. The verifier's log is long: its last line says what was wrong.
fn explain(error: impl std::error::Error + 'static) -> String {
    let mut text = Vec::new();
    let mut next: Option<&dyn std::error::Error> = Some(&error);
    while let Some(error) = next {
        let message = error.to_string();
        let lines: Vec<&str> = message.lines().filter(|line| !line.trim().is_empty()).collect();
        match lines.as_slice() {
            [] => {}
            [line] => text.push((*line).to_owned()),
            [first, .., last] => text.push(format!("{first} … {last}")),
        }
        next = error.source();
    }
    text.dedup();
    text.join(": ")
}

fn explain_load(error: aya::EbpfError) -> KernelError {
    let text = explain(error);
    if text.contains("Operation not permitted") || text.contains("Permission denied") {
        return KernelError::NotAllowed(text);
    }
    KernelError::Io(std::io::Error::other(text))
}
