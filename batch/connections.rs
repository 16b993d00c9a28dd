//! What a shard knows of one connection.

use std::{net::IpAddr, sync::Arc};

use ringtap_exchange::{
    Cause, Connection as Streams, Damage, Direction, Exchange, Hello, Limits, Part, Protocol, Role, dns,
};
use ringtap_ring::abi::{Endpoints, Library, Stream, Totals, exclude, wanted};

use crate::process::Process;

/// How the connection of a record was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Socket {
    /// From the call on the socket itself.
    #[default]
    Exact,
    /// From what the thread sent or received there.
    Inferred,
    /// The same, and the length of its records was that of the plaintext.
    Verified,
    /// Not at all.
    Unknown,
}

impl Socket {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Inferred => "inferred",
            Self::Verified => "verified",
            Self::Unknown => "unknown",
        }
    }
}

/// When to report a connection, in nanoseconds after it opened and between reports.
const FIRST_REPORT_NS: u64 = 500_000_000;
const REPORT_EVERY_NS: u64 = 10_000_000_000;
/// How long plaintext may still come after TCP has closed: it can lie in the library's buffers.
const GRACE_NS: u64 = 1_000_000_000;
/// How long a connection may be silent before it is taken as ended: its end can have been missed.
const IDLE_NS: u64 = 3_600_000_000_000;
/// How long a socket for datagrams may be silent: its end is not told.
const DATAGRAMS_IDLE_NS: u64 = 5_000_000_000;
/// How long a Unix socket may be silent when no exchange is open: its end is told only to whoever reads. A little longer
/// than the programs wait (`UNIX_IDLE_NS` in `bpf/unix.h`), which let it begin anew then.
const UNIX_IDLE_NS: u64 = 65_000_000_000;
/// How long a made-up connection, whose end is never told, may be silent.
const UNATTRIBUTED_IDLE_NS: u64 = 60_000_000_000;

/// A connection: its ends, its process, its streams.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) xid: String,
    pub(crate) tgid: u32,
    pub(crate) process: Option<Arc<Process>>,
    pub(crate) ends: Option<Endpoints>,
    /// Of a Unix socket: what the server is bound to.
    pub(crate) path: Option<String>,
    pub(crate) role: Option<Role>,
    pub(crate) late: bool,
    pub(crate) socket: Socket,
    /// On the socket, and as plaintext at a TLS library.
    pub(crate) layers: [Option<Box<Streams>>; 2],
    /// Up to where the kernel was told to skip, by layer and direction.
    pub(crate) skips: [[u64; 2]; 2],
    pub(crate) opened_ns: u64,
    pub(crate) last_ns: u64,
    pub(crate) closed: Option<(u64, Totals)>,
    pub(crate) bytes: [u64; 2],
    pub(crate) host: Option<String>,
    /// What a name server has answered for the other end's address, when the connection was made.
    pub(crate) answered: Option<String>,
    /// Who handed out the plaintext.
    pub(crate) library: Option<Library>,
    /// Datagrams, not streams.
    pub(crate) datagrams: bool,
    /// The programs have left it out from some moment on.
    pub(crate) left_out: bool,
    /// Reports so far, and when the next one is due.
    pub(crate) parts: i64,
    pub(crate) report_ns: u64,
}

impl Connection {
    pub(crate) fn new(xid: String, tgid: u32, now_ns: u64) -> Self {
        Self {
            xid,
            tgid,
            process: None,
            ends: None,
            path: None,
            role: None,
            late: false,
            socket: Socket::Exact,
            layers: [None, None],
            skips: [[0; 2]; 2],
            opened_ns: now_ns,
            last_ns: now_ns,
            closed: None,
            bytes: [0; 2],
            host: None,
            answered: None,
            library: None,
            datagrams: false,
            left_out: false,
            parts: 0,
            report_ns: now_ns.saturating_add(FIRST_REPORT_NS),
        }
    }

    pub(crate) fn open(&mut self, ends: Endpoints, late: bool) {
        self.role = match ends.role {
            1 => Some(Role::Client),
            2 => Some(Role::Server),
            _ => None,
        };
        self.late = late;
        self.ends = Some(ends);
    }

    /// The streams of a layer, to be put back after use.
    pub(crate) fn take_streams(&mut self, layer: usize, limits: Limits, late: bool) -> Box<Streams> {
        let (role, to_name_server) = (self.role, layer == 0 && self.is_dns());
        let new = if to_name_server { Streams::to_name_server } else { Streams::new };
        self.layers[layer].take().unwrap_or_else(|| Box::new(new(limits, role, late)))
    }

    /// The name that an exchange gives to the other end.
    pub(crate) fn note_host(&mut self, exchange: &Exchange) {
        let host = exchange.request.host().map(without_port);
        if let Some(host) = host.filter(|host| !host.is_empty() && self.host.as_deref() != Some(*host)) {
            self.host = Some(host.to_owned());
        }
    }

    /// The streams of which the kernel was told to skip something.
    pub(crate) fn skipped_streams(&self, conn: u64) -> impl Iterator<Item = Stream> {
        let told = self.skips.as_flattened().iter().zip([(0, 0), (0, 1), (1, 0), (1, 1)]);
        told.filter(|(until, _)| **until > 0).map(move |(_, (layer, direction))| Stream { conn, layer, direction })
    }

    /// The role as the kernel told it, else as the traffic shows it.
    pub(crate) fn role(&self) -> Option<Role> {
        self.role.or_else(|| self.layers.iter().flatten().find_map(|streams| streams.role()))
    }

    /// What the hello messages on the socket said.
    pub(crate) fn tls(&self) -> Option<&Hello> {
        self.layers[0].as_ref().and_then(|streams| streams.hello())
    }

    /// Whether both ends have agreed on TLS, and no probe has seen a byte of clear text, though it was to be looked at.
    pub(crate) fn is_unreadable(&self) -> bool {
        let excluded = self.process.as_ref().map_or(0, |process| process.excluded);
        let agreed = self.tls().is_some_and(|hello| hello.version.is_some());
        agreed && self.layers[1].is_none() && !self.left_out && excluded & exclude::TLS == 0
    }

    /// Whether the other end is a name server.
    pub(crate) fn is_dns(&self) -> bool {
        self.datagrams
            || (self.role == Some(Role::Client) && self.ends.is_some_and(|ends| ends.remote_port == dns::PORT))
    }

    pub(crate) fn is_http(&self) -> bool {
        let http = [Protocol::Http1, Protocol::Http2, Protocol::WebSocket];
        self.layers.iter().flatten().any(|streams| http.contains(&streams.spoken()))
    }

    pub(crate) fn l7_protocol(&self) -> &'static str {
        let speaks = |protocol| self.layers.iter().flatten().any(|streams| streams.spoken() == protocol);
        match () {
            () if self.is_dns() => "dns",
            () if speaks(Protocol::Http2) => "http2",
            () if self.host.is_some() || speaks(Protocol::Http1) || speaks(Protocol::WebSocket) => "http1",
            () => "other",
        }
    }

    pub(crate) fn is_unix(&self) -> bool {
        self.ends.is_some_and(|ends| ends.is_unix())
    }

    /// The ends, where they have addresses.
    pub(crate) fn addresses(&self) -> Option<&Endpoints> {
        self.ends.as_ref().filter(|ends| !ends.is_unix())
    }

    /// What stands for the address of a Unix socket.
    pub(crate) fn unix_address(&self) -> Option<String> {
        self.path.as_ref().map(|path| format!("unix:{path}"))
    }

    pub(crate) fn remote(&self) -> Option<IpAddr> {
        self.addresses().map(Endpoints::remote)
    }

    /// `ingress`, `egress-internal` or `egress-external`; a connection of unknown ends counts as external.
    pub(crate) fn direction(&self) -> &'static str {
        match self.role() {
            Some(Role::Server) => "ingress",
            _ if self.is_unix() || self.remote().is_some_and(is_internal) => "egress-internal",
            _ => "egress-external",
        }
    }

    /// Whether the configuration wants it; the kernel has decided this already where it knew enough.
    pub(crate) fn is_wanted(&self, bits: u32) -> bool {
        let excluded = self.process.as_ref().map_or(0, |process| process.excluded);
        let tls = if self.layers[1].is_some() { exclude::TLS } else { 0 };
        let direction = match self.direction() {
            "ingress" => wanted::INGRESS,
            // Where it goes is not known: rather told in vain than lost.
            _ if self.ends.is_none() => wanted::EGRESS_INTERNAL | wanted::EGRESS_EXTERNAL,
            "egress-internal" => wanted::EGRESS_INTERNAL,
            _ => wanted::EGRESS_EXTERNAL,
        };
        let unwanted = if self.is_dns() { exclude::DATA | exclude::DNS } else { exclude::DATA | exclude::HTTP | tls };
        excluded & unwanted == 0 && bits & direction != 0 && (!self.is_dns() || bits & wanted::DNS != 0)
    }

    /// Name of the other end: where we are the client the name that TLS or the request asks for, or that a name server
    /// gave to the address; else the address, or the path of a Unix socket.
    pub(crate) fn endpoint_id(&self) -> String {
        let sni = self.tls().and_then(|hello| hello.sni.as_ref());
        let asked_for = sni.or(self.host.as_ref()).or(self.answered.as_ref());
        match (self.role(), asked_for) {
            (Some(Role::Client) | None, Some(host)) => host.clone(),
            _ => self.remote().map(|ip| ip.to_string()).or_else(|| self.unix_address()).unwrap_or_default(),
        }
    }

    /// What every event says of the connection as `key:value`.
    pub(crate) fn tags(&self, endpoint: &str, protocol: &str) -> Vec<String> {
        let ip = self.remote().map(|ip| ip.to_string()).unwrap_or_default();
        let binary = self.process.as_deref().map_or("", Process::binary);
        let host = if endpoint == ip { "" } else { endpoint };
        let named = [("bin", binary), ("host", host), ("ip", &ip), ("protocol", protocol)];
        named.into_iter().filter(|(_, value)| !value.is_empty()).map(|(key, value)| format!("{key}:{value}")).collect()
    }

    /// Whether nothing more can come.
    pub(crate) fn is_over(&self, now_ns: u64) -> bool {
        match self.closed {
            Some((at, totals)) => now_ns.saturating_sub(at) > GRACE_NS || self.has_all(totals),
            None => {
                let limit = match () {
                    () if self.datagrams => DATAGRAMS_IDLE_NS,
                    () if self.is_unix() && !self.has_open_exchanges() => UNIX_IDLE_NS,
                    () if self.socket == Socket::Unknown => UNATTRIBUTED_IDLE_NS,
                    () => IDLE_NS,
                };
                now_ns.saturating_sub(self.last_ns) > limit
            }
        }
    }

    /// All bytes up to the close are here, and no exchange waits for plaintext that may still lie in a library.
    fn has_all(&self, totals: Totals) -> bool {
        let reached = |streams: &Option<Box<Streams>>, totals: [u64; 2]| {
            streams.as_ref().is_none_or(|s| {
                s.is_opaque()
                    || (s.next_offset(Direction::Sent) >= totals[0] && s.next_offset(Direction::Received) >= totals[1])
            })
        };
        let waits = self.layers[1].as_ref().is_some_and(|s| s.open_exchanges() > 0);
        !waits && reached(&self.layers[0], totals.socket) && reached(&self.layers[1], totals.tls)
    }

    fn has_open_exchanges(&self) -> bool {
        self.layers.iter().flatten().any(|streams| streams.open_exchanges() > 0)
    }

    /// Bytes of memory that open exchanges keep.
    pub(crate) fn kept_bytes(&self) -> usize {
        self.layers.iter().flatten().map(|streams| streams.kept_bytes()).sum()
    }

    /// Ends both layers; what was open comes out as it is.
    pub(crate) fn finish(&mut self, now_ns: u64) -> [Vec<Exchange>; 2] {
        let (at, totals) = self.closed.map_or((now_ns, None), |(at, totals)| (at, Some(totals)));
        // How many bytes its streams had is not known.
        let totals = totals.filter(|_| !self.left_out);
        let mut out = [Vec::new(), Vec::new()];
        for (layer, streams) in self.layers.iter_mut().enumerate() {
            if let Some(streams) = streams {
                let totals = totals.map(|t| if layer == 0 { t.socket } else { t.tls });
                streams.close(totals, at, &mut out[layer]);
            }
        }
        if self.left_out {
            let broken_off = Damage { cause: Cause::Governor, part: Part::Response, start: 0, end: 0 };
            out.iter_mut().flatten().for_each(|exchange| exchange.damage.push(broken_off));
        }
        out
    }

    /// The number of the report that is due now, if one is.
    pub(crate) fn report_due(&mut self, now_ns: u64) -> Option<i64> {
        if now_ns < self.report_ns {
            return None;
        }
        self.report_ns = now_ns.saturating_add(REPORT_EVERY_NS);
        self.parts += 1;
        Some(self.parts - 1)
    }
}

fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => authority,
    }
}

/// Private, link-local, shared (100.64/10) and loopback addresses; the same set as in the kernel programs.
fn is_internal(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => {
            let [first, second, ..] = a.octets();
            a.is_private() || a.is_loopback() || a.is_link_local() || (first == 100 && second & 0xc0 == 64)
        }
        IpAddr::V6(a) => a.is_loopback() || a.is_unique_local() || a.is_unicast_link_local(),
    }
}
