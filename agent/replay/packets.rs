//! From a captured packet to its TCP segment.

use std::net::{IpAddr, SocketAddr};

use etherparse::{EtherType, LaxNetSlice, LaxSlicedPacket, TransportSlice};

/// How the packets of an interface begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// Ethernet, with or without VLAN tags.
    Ethernet,
    /// Four bytes of an address family.
    Loopback,
    /// IPv4 or IPv6 at once.
    RawIp,
    /// Linux's "any" interface: 16 bytes, the protocol last.
    Cooked,
    /// Its second version: 20 bytes, the protocol first.
    Cooked2,
    /// Any other.
    Unknown,
}

impl Link {
    /// By the number that capture files use.
    #[must_use]
    pub fn of(number: i32) -> Self {
        match number {
            1 => Self::Ethernet,
            0 | 108 => Self::Loopback,
            12 | 14 | 101 | 228 | 229 => Self::RawIp,
            113 => Self::Cooked,
            276 => Self::Cooked2,
            _ => Self::Unknown,
        }
    }
}

/// Why a packet has no segment for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unread {
    /// Part of an IP packet.
    Fragment,
    /// Not TCP.
    Other,
    /// Its headers do not hold together, or its link layer is not known.
    Malformed,
}

/// A TCP segment with its addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub sequence: u32,
    pub acknowledged: Option<u32>,
    pub syn: bool,
    pub fin: bool,
    pub rst: bool,
    pub payload: &'a [u8],
    /// Bytes of payload on the wire; more than `payload` has if the capture cut the packet short.
    pub wire_len: u32,
}

impl<'a> Packet<'a> {
    /// Reads the headers.
    ///
    /// # Errors
    ///
    /// There is no TCP segment, or it cannot be read.
    pub fn read(link: Link, data: &'a [u8]) -> Result<Self, Unread> {
        let sliced = match link {
            Link::Ethernet => LaxSlicedPacket::from_ethernet(data).map_err(|_| Unread::Malformed)?,
            Link::Loopback => ip(data.get(4..))?,
            Link::RawIp => ip(Some(data))?,
            Link::Cooked => by_type(data.get(14..16), data.get(16..))?,
            Link::Cooked2 => by_type(data.get(..2), data.get(20..))?,
            Link::Unknown => return Err(Unread::Malformed),
        };
        let (addresses, fragment, ip_payload) = match sliced.net.as_ref() {
            Some(LaxNetSlice::Ipv4(ip)) => {
                let header = ip.header();
                let len = usize::from(header.total_len()).saturating_sub(usize::from(header.ihl()) * 4);
                let addresses = (IpAddr::from(header.source()), IpAddr::from(header.destination()));
                (addresses, header.is_fragmenting_payload(), len)
            }
            Some(LaxNetSlice::Ipv6(ip)) => {
                let header = ip.header();
                let extensions = ip.extensions().slice().len();
                let len = usize::from(header.payload_length()).saturating_sub(extensions);
                let addresses = (IpAddr::from(header.source()), IpAddr::from(header.destination()));
                (addresses, ip.is_payload_fragmented(), len)
            }
            _ => return Err(Unread::Other),
        };
        if fragment {
            return Err(Unread::Fragment);
        }
        let Some(TransportSlice::Tcp(tcp)) = &sliced.transport else {
            return Err(if sliced.stop_err.is_some() { Unread::Malformed } else { Unread::Other });
        };
        let payload = tcp.payload();
        // A length of 0 is what offloaded packets beyond 64 KiB carry.
        let wire_len = ip_payload.saturating_sub(tcp.header_slice().len()).max(payload.len());
        Ok(Self {
            from: SocketAddr::new(addresses.0, tcp.source_port()),
            to: SocketAddr::new(addresses.1, tcp.destination_port()),
            sequence: tcp.sequence_number(),
            acknowledged: tcp.ack().then(|| tcp.acknowledgment_number()),
            syn: tcp.syn(),
            fin: tcp.fin(),
            rst: tcp.rst(),
            payload,
            wire_len: u32::try_from(wire_len).unwrap_or(u32::MAX),
        })
    }
}

fn ip(data: Option<&[u8]>) -> Result<LaxSlicedPacket<'_>, Unread> {
    LaxSlicedPacket::from_ip(data.unwrap_or_default()).map_err(|_| Unread::Malformed)
}

fn by_type<'a>(kind: Option<&[u8]>, data: Option<&'a [u8]>) -> Result<LaxSlicedPacket<'a>, Unread> {
    match (kind, data) {
        (Some([a, b]), Some(data)) => {
            Ok(LaxSlicedPacket::from_ether_type(EtherType(u16::from_be_bytes([*a, *b])), data))
        }
        _ => Err(Unread::Malformed),
    }
}
