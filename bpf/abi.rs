//! The Rust view of `abi.h`.
//!
//! Readers copy out of the bytes they are given, so records need no alignment and a short or broken record is `None`,
//! never a fault.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Payload bytes of one record at most.
pub const CHUNK_MAX: usize = 16 * 1024;
/// Of a process that is sampled one connection in so many is captured.
pub const SAMPLE: u32 = 8;
/// Rings at most.
pub const SHARDS_MAX: usize = 64;

/// What a record is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Bytes of a stream, or their absence.
    Payload = 1,
    /// A connection and its process became known.
    Open = 2,
    /// A connection ended.
    Close = 3,
    /// A process began to run another program.
    Exec = 4,
    /// A process ended.
    Exit = 5,
    /// A process mapped a file for execution.
    Map = 6,
    /// Who a process is, as JSON. Only in recordings.
    Process = 64,
    /// Wall time minus boot time from here on, in nanoseconds, little-endian. Only in recordings.
    Clock = 65,
}

impl Kind {
    /// `None` for a value that this build does not know.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Payload,
            2 => Self::Open,
            3 => Self::Close,
            4 => Self::Exec,
            5 => Self::Exit,
            6 => Self::Map,
            64 => Self::Process,
            65 => Self::Clock,
            _ => return None,
        })
    }
}

/// Bits of [`Record::flags`].
pub mod flag {
    /// The socket was inferred from the thread's last one.
    pub const INFERRED: u32 = 1 << 0;
    /// No socket is known; the connection id is made up from the TLS object.
    pub const UNATTRIBUTED: u32 = 1 << 1;
    /// The bytes could not be read.
    pub const FAULT: u32 = 1 << 2;
    /// The bytes went from a file to the socket without passing user space.
    pub const SENDFILE: u32 = 1 << 3;
    /// The connection is older than the agent.
    pub const LATE: u32 = 1 << 4;
    /// The program let the kernel discard the bytes.
    pub const DISCARDED: u32 = 1 << 5;
    /// The bytes were left out of a recording. The programs never set it.
    pub const REDACTED: u32 = 1 << 6;
    /// A capture file lacks the bytes. The programs never set it.
    pub const UNCAPTURED: u32 = 1 << 7;
    /// A datagram to or from a name server, not bytes of a stream.
    pub const DATAGRAM: u32 = 1 << 8;
    /// The process was stopped, and waits to be let go.
    pub const HELD: u32 = 1 << 9;
    /// The inferred socket's records have the length of the plaintext.
    pub const VERIFIED: u32 = 1 << 10;
    /// Of a close: the connection was left out before, since probes cost its process too much.
    pub const GOVERNED: u32 = 1 << 11;
    /// The bytes went through a pipe without passing user space.
    pub const SPLICED: u32 = 1 << 12;
}

/// The TLS library, or what stands for one, that handed out plaintext; in the highest byte of [`Record::flags`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Library {
    /// OpenSSL and what has its functions.
    OpenSsl = 0,
    /// `GnuTLS`.
    GnuTls = 1,
    /// NSS, by NSPR's functions.
    Nss = 2,
    /// mbed TLS.
    MbedTls = 3,
    /// wolfSSL.
    WolfSsl = 4,
    /// s2n-tls.
    S2n = 5,
    /// Go's `crypto/tls`.
    Go = 6,
    /// rustls.
    Rustls = 7,
}

impl Library {
    /// Whose plaintext a record holds; `None` for one that this build does not know.
    #[must_use]
    pub fn of_flags(flags: u32) -> Option<Self> {
        Some(match flags >> 24 {
            0 => Self::OpenSsl,
            1 => Self::GnuTls,
            2 => Self::Nss,
            3 => Self::MbedTls,
            4 => Self::WolfSsl,
            5 => Self::S2n,
            6 => Self::Go,
            7 => Self::Rustls,
            _ => return None,
        })
    }

    /// Name in events.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OpenSsl => "openssl",
            Self::GnuTls => "gnutls",
            Self::Nss => "nss",
            Self::MbedTls => "mbedtls",
            Self::WolfSsl => "wolfssl",
            Self::S2n => "s2n",
            Self::Go => "gotls",
            Self::Rustls => "rustls",
        }
    }
}

/// Bits of the programs' constant `wanted`: which connections are captured.
pub mod wanted {
    /// Connections that were accepted here.
    pub const INGRESS: u32 = 1 << 0;
    /// Connections to private, link-local, shared and loopback addresses.
    pub const EGRESS_INTERNAL: u32 = 1 << 1;
    /// Connections to all other addresses.
    pub const EGRESS_EXTERNAL: u32 = 1 << 2;
    /// Whether the other end may be a loopback address.
    pub const LOOPBACK: u32 = 1 << 3;
    /// Connections to name servers. What they answer is wanted always.
    pub const DNS: u32 = 1 << 4;
}

/// Bits of the map `excluded`: what of a process is left alone.
pub mod exclude {
    /// All payload.
    pub const DATA: u32 = 1 << 0;
    /// Name look-ups.
    pub const DNS: u32 = 1 << 1;
    /// Plaintext at TLS libraries.
    pub const TLS: u32 = 1 << 2;
    /// HTTP.
    pub const HTTP: u32 = 1 << 3;
    /// Everything.
    pub const ALL: u32 = 0xff;
    /// The governor's: all but one connection in [`super::SAMPLE`].
    pub const SAMPLED: u32 = 1 << 8;
    /// The governor's: all connections.
    pub const OFF: u32 = 1 << 9;
}

/// Head of every record.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Record {
    /// Boot time in nanoseconds when the call had ended.
    pub time_ns: u64,
    /// Socket cookie, or an id of the programs' own with the highest bit set.
    pub conn: u64,
    /// Stream offset of the first byte.
    pub offset: u64,
    /// Bytes of the stream that the record stands for.
    pub len: u32,
    /// Bytes that follow this head; fewer than `len` when they could not be read.
    pub size: u32,
    /// Process.
    pub tgid: u32,
    /// Thread.
    pub tid: u32,
    /// A [`Kind`].
    pub kind: u8,
    /// 0 sent, 1 received, as the process sees it.
    pub direction: u8,
    /// 0 socket, 1 TLS plaintext.
    pub layer: u8,
    pad: u8,
    /// Bits of [`flag`], and a [`Library`].
    pub flags: u32,
}

impl Record {
    /// Bytes of a head.
    pub const SIZE: usize = 48;

    /// Splits a record into its head and the bytes that belong to it; `None` if it is cut short.
    #[must_use]
    pub fn split(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (head, rest) = Self::read_from_prefix(bytes).ok()?;
        Some((head, rest.get(..head.size as usize)?))
    }
}

/// Both ends of a connection.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Endpoints {
    /// `AF_UNIX` (1), `AF_INET` (2) or `AF_INET6` (10).
    pub family: u16,
    /// 0 unknown, 1 client, 2 server.
    pub role: u8,
    pad: u8,
    /// Host byte order.
    pub local_port: u16,
    /// Host byte order.
    pub remote_port: u16,
    local: [u8; 16],
    remote: [u8; 16],
}

impl Endpoints {
    /// Those of a connection that did not come from the kernel; `role` as in the field.
    #[must_use]
    pub fn new(role: u8, local: std::net::SocketAddr, remote: std::net::SocketAddr) -> Self {
        let bytes = |address: std::net::IpAddr| match address {
            std::net::IpAddr::V6(ip) => ip.octets(),
            std::net::IpAddr::V4(ip) => {
                let mut bytes = [0; 16];
                bytes[..4].copy_from_slice(&ip.octets());
                bytes
            }
        };
        Self {
            family: if local.is_ipv4() { 2 } else { 10 },
            role,
            pad: 0,
            local_port: local.port(),
            remote_port: remote.port(),
            local: bytes(local.ip()),
            remote: bytes(remote.ip()),
        }
    }

    /// `None` if the bytes are too few.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        Self::read_from_prefix(bytes).ok().map(|(ends, _)| ends)
    }

    /// Whether these are the ends of a Unix socket, which have no addresses.
    #[must_use]
    pub fn is_unix(&self) -> bool {
        self.family == 1
    }

    /// Address on this machine; IPv4 mapped into IPv6 is given as IPv4.
    #[must_use]
    pub fn local(&self) -> std::net::IpAddr {
        self.address(self.local)
    }

    /// Address of the other end.
    #[must_use]
    pub fn remote(&self) -> std::net::IpAddr {
        self.address(self.remote)
    }

    fn address(&self, bytes: [u8; 16]) -> std::net::IpAddr {
        if self.family == 2 {
            let [a, b, c, d, ..] = bytes;
            return std::net::Ipv4Addr::new(a, b, c, d).into();
        }
        std::net::IpAddr::from(bytes).to_canonical()
    }
}

/// The path that stands behind the ends of a Unix socket; `None` for one of any other kind, or that is bound to nothing.
#[must_use]
pub fn unix_path(open: &[u8]) -> Option<String> {
    let (ends, path) = Endpoints::read_from_prefix(open).ok()?;
    let path = path.split(|byte| *byte == 0).next().filter(|path| ends.is_unix() && !path.is_empty())?;
    Some(String::from_utf8_lossy(path).into_owned())
}

/// Lengths of a connection's streams when it closed, by direction (sent, received).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Totals {
    /// On the socket.
    pub socket: [u64; 2],
    /// Plaintext at the TLS library.
    pub tls: [u64; 2],
}

impl Totals {
    /// `None` if the bytes are too few.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        Self::read_from_prefix(bytes).ok().map(|(totals, _)| totals)
    }
}

/// The end of a connection whose record found a full ring.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct LostEnd {
    /// Boot time in nanoseconds.
    pub time_ns: u64,
    /// Lengths of the streams.
    pub totals: Totals,
}

/// A file that was mapped for execution.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MappedFile {
    /// Device number as the kernel holds it, and above it the generation of the inode.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    name: [u8; 128],
}

impl MappedFile {
    /// `None` if the bytes are too few.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        Self::read_from_prefix(bytes).ok().map(|(file, _)| file)
    }

    /// Last part of the file's path.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        let end = self.name.iter().position(|b| *b == 0).unwrap_or(self.name.len());
        &self.name[..end]
    }
}

/// What a process has moved since it began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Activity {
    /// TLS on its sockets, handshakes and all, in both directions.
    pub tls_bytes: u64,
    /// What probes saw of it in the clear.
    pub clear_bytes: u64,
    /// On sockets that do not speak TLS.
    pub socket_bytes: u64,
    /// On sockets, by ways that are not observed.
    pub unseen_bytes: u64,
    /// Calls of TLS functions that a probe stopped when they returned.
    pub calls: u64,
    /// A bit for each [`Library`] that handed out plaintext.
    pub libraries: u64,
    /// Ciphertext of one connection that a thread received, and then decrypted another's.
    pub scattered: u64,
    /// Ciphertext of one connection that a thread sent after it had encrypted another's, or none.
    pub relayed: u64,
    /// System calls that moved bytes on sockets.
    pub io_calls: u64,
}

/// Key of the map `skip_until`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Stream {
    /// Connection id.
    pub conn: u64,
    /// 0 socket, 1 TLS plaintext.
    pub layer: u32,
    /// 0 sent, 1 received.
    pub direction: u32,
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What the programs counted, summed over processors. The order is that of `RT_COUNTERS` in `abi.h`.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
        #[repr(C)]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            /// Names and values, in the order of the kernel's structure.
            #[must_use]
            pub fn named(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name)),*]
            }

            /// Adds another processor's counts.
            pub fn add(&mut self, other: &Self) {
                $(self.$name = self.$name.wrapping_add(other.$name);)*
            }
        }
    };
}

counters! {
    /// Payload of wanted connections that passed the probes.
    seen_bytes,
    /// Payload that went into a ring.
    captured_bytes,
    /// Records that went into the shards' rings.
    captured_records,
    /// Payload lost because a ring was full.
    ring_full_bytes,
    /// Records lost because a ring was full.
    ring_full_records,
    /// Payload that could not be read from the process.
    fault_bytes,
    /// Payload beyond what one call may bring.
    call_limit_bytes,
    /// Payload that went from file to socket inside the kernel.
    sendfile_bytes,
    /// Payload that the program let the kernel discard.
    discarded_bytes,
    /// TLS records on sockets: their plaintext is taken at the library, or not at all.
    ciphertext_bytes,
    /// Payload that user space asked to leave in the kernel.
    skipped_bytes,
    /// Process events lost because the control ring was full.
    control_lost,
    /// Connections not captured because their map was full.
    connections_full,
    /// TLS calls not captured because their map was full.
    calls_full,
    /// TLS objects not captured because their map was full.
    tls_objects_full,
    /// Payload read from a socket after TCP had closed it and its state was gone.
    after_close_bytes,
    /// Socket calls of 32-bit programs, which are not captured.
    compat_calls,
    /// Plaintext whose socket is not known; it is captured all the same.
    unattributed_bytes,
    /// TLS calls whose byte count could not be read or believed.
    counts_unread,
    /// Ends of connections that found a full ring and a full map.
    ends_lost,
    /// Bytes that TCP's sequence numbers show to have moved by calls that were not seen: forms of `io_uring` that are not
    /// followed, or a call whose end came while the program ran for another one on the same processor.
    unseen_bytes,
    /// Connections that were left out since probes cost their process too much.
    governed_connections,
    /// Payload that went through a pipe inside the kernel.
    spliced_bytes,
}

/// The shard of a connection; the same function as `shard_of` in `emit.h`.
#[must_use]
pub fn shard_of(conn: u64, shards: u32) -> u32 {
    debug_assert!(shards.is_power_of_two());
    let hash = conn.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    u32::try_from(hash & u64::from(shards - 1)).expect("masked below the number of shards")
}

// The other half of the assertions in abi.h.
const _: () = {
    assert!(size_of::<Record>() == Record::SIZE);
    assert!(std::mem::offset_of!(Record, offset) == 16);
    assert!(std::mem::offset_of!(Record, tgid) == 32);
    assert!(std::mem::offset_of!(Record, flags) == 44);
    assert!(size_of::<Endpoints>() == 40);
    assert!(std::mem::offset_of!(Endpoints, local) == 8);
    assert!(size_of::<Totals>() == 32);
    assert!(size_of::<MappedFile>() == 144);
    assert!(size_of::<Stream>() == 16);
    assert!(size_of::<LostEnd>() == 40);
    assert!(size_of::<Activity>() == 72);
    assert!(size_of::<Counters>() == 23 * 8);
};

#[cfg(test)]
mod tests {
    use super::*;

    /// A record that ends before its own size says so is refused.
    #[test]
    fn short_records_are_refused() {
        let mut bytes = vec![0u8; Record::SIZE + 3];
        bytes[28] = 4; // size
        assert!(Record::split(&bytes).is_none());
        bytes.push(0);
        assert_eq!(Record::split(&bytes).map(|(_, rest)| rest.len()), Some(4));
        assert!(Record::split(&bytes[..40]).is_none());
    }

    #[test]
    fn mapped_addresses_become_ipv4() {
        let mut ends = [0u8; 40];
        ends[0] = 10;
        ends[18..24].copy_from_slice(&[0xff, 0xff, 192, 0, 2, 7]);
        let ends = Endpoints::read(&ends).expect("forty bytes are enough");
        assert_eq!(ends.local().to_string(), "192.0.2.7");
        assert_eq!(ends.remote().to_string(), "::");
    }

    /// Only the ends of a Unix socket have a path, and only if the server is bound to one.
    #[test]
    fn unix_sockets_have_a_path() {
        let mut open = [0u8; 152];
        open[40..54].copy_from_slice(b"/run/http.sock");
        assert_eq!(unix_path(&open), None);
        open[0] = 1;
        assert_eq!(unix_path(&open).as_deref(), Some("/run/http.sock"));
        assert_eq!(unix_path(&open[..40]), None);
        assert_eq!(unix_path(&open[..39]), None);
    }

    #[test]
    fn names_end_at_the_first_zero() {
        let mut bytes = [0u8; 144];
        bytes[16..22].copy_from_slice(b"libssl");
        assert_eq!(MappedFile::read(&bytes).expect("long enough").name(), b"libssl");
    }

    /// The names in `abi.h` and here are the same, in the same order.
    #[test]
    fn counters_match_the_header() {
        let header = include_str!("abi.h");
        let in_header: Vec<&str> =
            header.lines().filter_map(|line| line.trim().strip_prefix("X(")?.split(')').next()).collect();
        let here: Vec<&str> = Counters::default().named().into_iter().map(|(name, _)| name).collect();
        assert_eq!(in_header, here);
    }
}
