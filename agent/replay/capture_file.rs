//! Packets of a pcap or pcapng file, as raw records batches.

use std::{
    fs::File,
    io::{self, Read, Seek as _},
    path::Path,
};

use arrow_array::RecordBatch;
use pcap_parser::{
    Block, PcapBlockOwned, PcapError, PcapHeader,
    traits::{PcapNGPacketBlock as _, PcapReaderIterator},
};

use super::{
    packets::{Link, Packet, Unread},
    segments::{Flows, View},
};

/// Bytes that the reader holds; a packet is far smaller.
const BUFFER: usize = 1 << 20;
const BUFFER_MAX: usize = 64 << 20;
/// A batch is handed on at so many bytes or rows.
const BATCH_BYTES: usize = 1 << 20;
const BATCH_ROWS: usize = 8192;

/// Why a capture file cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum CaptureFileError {
    /// The disk failed.
    #[error("cannot read the capture file: {0}")]
    Io(#[from] io::Error),
    /// Neither pcap nor pcapng.
    #[error("this is neither a recording of ringtap nor a pcap or pcapng file")]
    NotRecognized,
    /// Not the bytes that such a file has there.
    #[error("the capture file is damaged in the block that begins at byte {at}: {reason}")]
    Damaged {
        /// Where the block begins.
        at: u64,
        /// What is wrong with it.
        reason: String,
    },
}

/// What was met in a capture file.
#[derive(Debug, Clone, Copy, Default, serde::Serialize)]
pub struct PacketCounts {
    /// All packets.
    pub packets: u64,
    /// Of them TCP segments that were read.
    pub tcp: u64,
    /// Fragments of IP packets, which are not put together.
    pub fragments: u64,
    /// Other protocols.
    pub other: u64,
    /// Packets whose headers could not be read, or of a link layer that is not known.
    pub unreadable: u64,
    /// Packets that the capture had cut short.
    pub cut_short: u64,
}

/// An interface of the file: how its packets begin, and what its timestamps count.
#[derive(Debug, Clone, Copy)]
struct Interface {
    link: Link,
    /// Ticks a second.
    resolution: u64,
    /// Seconds to add.
    offset: i64,
}

/// A pcap or pcapng file, read batch by batch.
pub struct CaptureFile {
    reader: Box<dyn PcapReaderIterator + Send>,
    len: u64,
    at: u64,
    interfaces: Vec<Interface>,
    flows: Flows,
    counts: PacketCounts,
    now_ns: u64,
    ended: bool,
    fault: Option<CaptureFileError>,
}

impl CaptureFile {
    /// Opens a capture file; connections are seen from the end that `view` says.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or is something else.
    pub fn open(path: &Path, view: View) -> Result<Self, CaptureFileError> {
        let mut file = File::open(path)?;
        let len = file.metadata()?.len();
        let mut magic = [0; 4];
        file.read_exact(&mut magic).map_err(|_| CaptureFileError::NotRecognized)?;
        file.rewind()?;
        let refused = |_| CaptureFileError::NotRecognized;
        let reader: Box<dyn PcapReaderIterator + Send> = if magic == [0x0a, 0x0d, 0x0d, 0x0a] {
            Box::new(pcap_parser::PcapNGReader::new(BUFFER, file).map_err(refused)?)
        } else {
            Box::new(pcap_parser::LegacyPcapReader::new(BUFFER, file).map_err(refused)?)
        };
        Ok(Self {
            reader,
            len,
            at: 0,
            interfaces: Vec::new(),
            flows: Flows::new(view),
            counts: PacketCounts::default(),
            now_ns: 0,
            ended: false,
            fault: None,
        })
    }

    /// Bytes read so far, and bytes of the file.
    #[must_use]
    pub fn progress(&self) -> (u64, u64) {
        (self.at, self.len)
    }

    /// What was met so far.
    #[must_use]
    pub fn counts(&self) -> PacketCounts {
        self.counts
    }

    /// Time of the packet that was read last, in nanoseconds since 1970.
    #[must_use]
    pub fn now_ns(&self) -> u64 {
        self.now_ns
    }

    /// The next batch; `None` at the end.
    ///
    /// # Errors
    ///
    /// The file is damaged, or ends within a packet.
    pub fn read(&mut self) -> Result<Option<RecordBatch>, CaptureFileError> {
        while !self.ended && self.flows.rows() < BATCH_ROWS && self.flows.bytes() < BATCH_BYTES {
            if let Err(fault) = self.block() {
                // First what came before the damage.
                (self.ended, self.fault) = (true, Some(fault));
            }
        }
        if self.ended {
            self.flows.finish(self.now_ns);
        }
        match (self.flows.take_batch(), self.fault.take()) {
            (None, Some(fault)) => Err(fault),
            (batch, fault) => {
                self.fault = fault;
                Ok(batch)
            }
        }
    }

    /// Reads one block of the file, or more bytes for one.
    fn block(&mut self) -> Result<(), CaptureFileError> {
        let at = self.at;
        let damaged = |reason: &str| CaptureFileError::Damaged { at, reason: reason.to_owned() };
        let needed = match self.reader.next() {
            Ok((len, block)) => {
                let Self { interfaces, flows, counts, now_ns, .. } = self;
                take_block(&block, interfaces, flows, counts, now_ns).map_err(damaged)?;
                self.reader.consume_noshift(len);
                self.at += len as u64;
                return Ok(());
            }
            Err(PcapError::Eof) => {
                self.ended = true;
                return Ok(());
            }
            Err(PcapError::Incomplete(needed)) => needed,
            Err(PcapError::UnexpectedEof) => return Err(damaged("the file ends within the block")),
            Err(PcapError::HeaderNotRecognized) => return Err(CaptureFileError::NotRecognized),
            Err(error) => return Err(damaged(&describe(&error))),
        };
        self.refill(needed).map_err(|reason| damaged(&reason))
    }

    /// Reads more bytes for a block of which so many are missing.
    fn refill(&mut self, needed: usize) -> Result<(), String> {
        if self.reader.reader_exhausted() {
            return Err("the file ends within the block".into());
        }
        let whole = self.reader.data().len().saturating_add(needed);
        if whole > BUFFER_MAX || (whole > BUFFER && !self.reader.grow(BUFFER_MAX)) {
            return Err("the block is larger than any packet".into());
        }
        self.reader.refill().map_err(|error| describe(&error))
    }
}

/// The error without the bytes that it holds.
fn describe(error: &PcapError<&[u8]>) -> String {
    match error {
        PcapError::NomError(_, kind) => format!("it does not read as one ({kind:?})"),
        PcapError::ReadError => "the disk failed".into(),
        PcapError::BufferTooSmall => "it claims to be longer than any packet".into(),
        PcapError::Incomplete(_) | PcapError::UnexpectedEof | PcapError::Eof => "the file ends within it".into(),
        other => format!("{other:?}"),
    }
}

fn take_block(
    block: &PcapBlockOwned<'_>,
    interfaces: &mut Vec<Interface>,
    flows: &mut Flows,
    counts: &mut PacketCounts,
    now_ns: &mut u64,
) -> Result<(), &'static str> {
    let (interface, ticks, data, whole) = match block {
        PcapBlockOwned::LegacyHeader(header) => {
            *interfaces = vec![interface_of(header)];
            return Ok(());
        }
        PcapBlockOwned::Legacy(packet) => {
            let interface = *interfaces.first().ok_or("a packet comes before the file's header")?;
            let ticks = u64::from(packet.ts_sec) * interface.resolution + u64::from(packet.ts_usec);
            let data = packet.data.get(..packet.caplen as usize).unwrap_or(packet.data);
            (interface, ticks, data, packet.origlen)
        }
        PcapBlockOwned::NG(Block::SectionHeader(_)) => {
            interfaces.clear();
            return Ok(());
        }
        PcapBlockOwned::NG(Block::InterfaceDescription(description)) => {
            let resolution = description.ts_resolution().ok_or("the timestamps' resolution is out of range")?;
            let link = Link::of(description.linktype.0);
            interfaces.push(Interface { link, resolution, offset: description.ts_offset() });
            return Ok(());
        }
        PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
            let interface =
                *interfaces.get(packet.if_id as usize).ok_or("a packet is of an interface that is not described")?;
            let ticks = u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low);
            (interface, ticks, packet.packet_data(), packet.orig_len())
        }
        PcapBlockOwned::NG(Block::SimplePacket(packet)) => {
            let interface = *interfaces.first().ok_or("a packet is of an interface that is not described")?;
            (interface, 0, packet.packet_data(), packet.orig_len())
        }
        PcapBlockOwned::NG(_) => return Ok(()),
    };
    counts.packets += 1;
    counts.cut_short += u64::from((data.len() as u64) < u64::from(whole));
    // Packets without a time keep that of the one before.
    if ticks > 0 {
        *now_ns = nanoseconds(ticks, interface);
    }
    match Packet::read(interface.link, data) {
        Ok(packet) => {
            counts.tcp += 1;
            flows.packet(*now_ns, &packet);
        }
        Err(Unread::Fragment) => counts.fragments += 1,
        Err(Unread::Other) => counts.other += 1,
        Err(Unread::Malformed) => counts.unreadable += 1,
    }
    Ok(())
}

fn interface_of(header: &PcapHeader) -> Interface {
    let resolution = if header.is_nanosecond_precision() { 1_000_000_000 } else { 1_000_000 };
    // Above the link type the field carries a checksum's length.
    Interface { link: Link::of(header.network.0 & 0xffff), resolution, offset: 0 }
}

fn nanoseconds(ticks: u64, interface: Interface) -> u64 {
    let ns = u128::from(ticks) * 1_000_000_000 / u128::from(interface.resolution.max(1));
    let ns = i128::try_from(ns).unwrap_or(i128::MAX).saturating_add(i128::from(interface.offset) * 1_000_000_000);
    u64::try_from(ns.max(0)).unwrap_or(u64::MAX)
}
