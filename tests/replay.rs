//! Capture files through the whole program, without a kernel: link layers, losses, and files that are broken.
#![forbid(unsafe_code)]

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, ensure};
use etherparse::PacketBuilder;
use serde_json::Value;

const REQUEST: &[u8] = b"GET /items HTTP/1.1\r\nHost: api.example.com\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

/// How the packets of a file begin.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Shape {
    Ethernet,
    Vlan,
    Ethernet6,
    Loopback,
    Raw,
    Raw6,
}

impl Shape {
    fn link(self) -> u32 {
        match self {
            Self::Ethernet | Self::Vlan | Self::Ethernet6 => 1,
            Self::Loopback => 0,
            Self::Raw | Self::Raw6 => 101,
        }
    }

    /// A segment from the client or from the server.
    fn packet(self, from_client: bool, sequence: u32, flags: &str, payload: &[u8]) -> Vec<u8> {
        let (v4, v6) = ([[10, 0, 0, 1], [10, 0, 0, 2]], [[1; 16], [2; 16]]);
        let (from, to) = if from_client { (0, 1) } else { (1, 0) };
        let ports = [40_000, 80];
        let ethernet = || PacketBuilder::ethernet2([1; 6], [2; 6]);
        let ip = match self {
            Self::Ethernet => ethernet().ipv4(v4[from], v4[to], 64),
            Self::Vlan => {
                ethernet().single_vlan(etherparse::VlanId::try_new(7).expect("an id")).ipv4(v4[from], v4[to], 64)
            }
            Self::Ethernet6 => ethernet().ipv6(v6[from], v6[to], 64),
            Self::Loopback | Self::Raw => PacketBuilder::ipv4(v4[from], v4[to], 64),
            Self::Raw6 => PacketBuilder::ipv6(v6[from], v6[to], 64),
        };
        let mut tcp = ip.tcp(ports[from], ports[to], sequence, 65_000);
        if flags.contains('S') {
            tcp = tcp.syn();
        }
        if flags.contains('F') {
            tcp = tcp.fin();
        }
        if flags.contains('A') {
            tcp = tcp.ack(1);
        }
        let mut bytes = if self == Self::Loopback { 2u32.to_le_bytes().to_vec() } else { Vec::new() };
        tcp.write(&mut bytes, payload).expect("memory takes it");
        bytes
    }

    /// A whole connection with one exchange, the response in two segments that come in the wrong order.
    fn conversation(self) -> Vec<Vec<u8>> {
        let (head, tail) = RESPONSE.split_at(20);
        let end = 1 + u32::try_from(REQUEST.len()).expect("short");
        vec![
            self.packet(true, 0, "S", b""),
            self.packet(false, 0, "SA", b""),
            self.packet(true, 1, "A", REQUEST),
            self.packet(false, 21, "A", tail),
            self.packet(false, 1, "A", head),
            self.packet(false, 1, "A", head),
            self.packet(true, end, "FA", b""),
        ]
    }
}

fn pcap(link: u32, packets: &[Vec<u8>]) -> Vec<u8> {
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    let mut file = words(&[0xa1b2_c3d4, 0x0004_0002, 0, 0, 0x40000, link]);
    for (at, packet) in (0u32..).zip(packets) {
        let len = u32::try_from(packet.len()).expect("short");
        file.extend(words(&[1_700_000_000, at * 1000, len, len]));
        file.extend(packet);
    }
    file
}

fn pcapng(link: u32, packets: &[Vec<u8>]) -> Vec<u8> {
    let block = |kind: u32, body: &[u8]| {
        let padded = body.len().next_multiple_of(4);
        let len = u32::try_from(padded + 12).expect("short").to_le_bytes();
        let mut block = [&kind.to_le_bytes()[..], &len, body].concat();
        block.resize(8 + padded, 0);
        block.extend(len);
        block
    };
    let mut header = 0x1a2b_3c4du32.to_le_bytes().to_vec();
    header.extend([1, 0, 0, 0]);
    header.extend([0xff; 8]);
    let mut file = block(0x0a0d_0d0a, &header);
    file.extend(block(
        1,
        &[&u16::try_from(link).expect("small").to_le_bytes()[..], &[0, 0], &0u32.to_le_bytes()].concat(),
    ));
    for (at, packet) in (0u64..).zip(packets) {
        let ticks = 1_700_000_000_000_000 + at * 1000;
        let len = u32::try_from(packet.len()).expect("short");
        let high = u32::try_from(ticks >> 32).expect("half");
        let low = u32::try_from(ticks & 0xffff_ffff).expect("half");
        let mut body: Vec<u8> = [0, high, low, len, len].iter().flat_map(|word| word.to_le_bytes()).collect();
        body.extend(packet);
        file.extend(block(6, &body));
    }
    file
}

const CONFIG: &str = "version: 2
stacks:
  s:
    plugins:
      - {type: access_logs, config: {mode: summary, format: console}}
tap: {direction: DIRECTION, ignore_loopback: false, http: {stack: s}}
";

const TINY: &str = "version: 2
services:
  event_stores: [{type: stdout}]
  object_stores: [{type: stdout}]
stacks:
  s: {plugins: [{type: http_capture, config: {level: full}}]}
tap: {direction: egress, ignore_loopback: false, http: {stack: s}, budgets: {agent: 1mb}}
";

/// The lines that a replay printed, its summary, what it said, and how it ended.
fn replay(folder: &Path, file: &[u8], direction: &str) -> anyhow::Result<(Vec<String>, Value, String, Option<i32>)> {
    let (path, config) = (folder.join("file"), folder.join("config.yaml"));
    fs::write(&path, file)?;
    fs::write(&config, CONFIG.replace("DIRECTION", direction))?;
    let output = Command::new(env!("CARGO_BIN_EXE_ringtap"))
        .args(["replay", "--json", "--log-encoding", "console", "--config"])
        .args([&config, &path])
        .output()?;
    let stdout = String::from_utf8(output.stdout)?;
    let (said, lines): (Vec<&str>, Vec<&str>) = stdout.lines().partition(|line| line.starts_with('{'));
    let summary = said.last().map_or(Ok(Value::Null), |line| serde_json::from_str(line))?;
    let lines = lines.into_iter().map(str::to_owned).collect();
    Ok((lines, summary, String::from_utf8_lossy(&output.stderr).into_owned(), output.status.code()))
}

#[test]
fn every_link_layer_is_read() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    for shape in [Shape::Ethernet, Shape::Vlan, Shape::Ethernet6, Shape::Loopback, Shape::Raw, Shape::Raw6] {
        let packets = shape.conversation();
        for file in [pcap(shape.link(), &packets), pcapng(shape.link(), &packets)] {
            let (lines, summary, said, code) = replay(folder.path(), &file, "egress")?;
            ensure!(code == Some(0), "{shape:?}: {said}");
            ensure!(
                lines.len() == 1 && lines[0].contains("200  GET    http://api.example.com/items"),
                "{shape:?}: {lines:?}"
            );
            ensure!(lines[0].starts_with("22:13:20.00") && !lines[0].contains("DAMAGED"), "{shape:?}: {lines:?}");
            ensure!(summary["balanced"] == true && summary["packets"]["tcp"] == 7, "{shape:?}: {summary:#}");
        }
    }
    Ok(())
}

/// The same connection, as the server's process sees it.
#[test]
fn an_ingress_configuration_looks_from_the_server() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let file = pcap(1, &Shape::Ethernet.conversation());
    let (lines, ..) = replay(folder.path(), &file, "ingress")?;
    ensure!(lines.len() == 1 && lines[0].contains("← 10.0.0.1:40000"), "{lines:?}");
    Ok(())
}

/// A segment that is missing and a packet that was cut short: the ledger counts both, and the exchange is damaged.
#[test]
fn what_a_capture_file_lacks_is_counted() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let shape = Shape::Ethernet;
    let body = [b'x'; 300];
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 300\r\n\r\n";
    let (asked, begins) = (u32::try_from(REQUEST.len())?, 1 + u32::try_from(head.len())?);
    let mut packets = shape.conversation()[..3].to_vec();
    packets.push(shape.packet(false, 1, "A", head));
    // The first hundred bytes are missing.
    packets.push(shape.packet(false, begins + 100, "A", &body[100..200]));
    packets.push(shape.packet(false, begins + 200, "A", &body[200..]));
    packets.push(shape.packet(true, 1 + asked, "FA", b""));
    let file = pcap(1, &packets);
    let (lines, summary, said, code) = replay(folder.path(), &file, "egress")?;
    ensure!(code == Some(0), "{said}");
    ensure!(summary["balanced"] == true && summary["ledger"]["bytes_uncaptured"] == 100, "{summary:#}");
    ensure!(lines.len() == 1 && lines[0].contains("DAMAGED"), "{lines:?}");
    Ok(())
}

/// With next to no memory a replay takes its time, and ends with everything delivered or counted.
#[test]
fn a_tiny_budget_does_not_stop_a_replay() -> anyhow::Result<()> {
    const EXCHANGES: u32 = 200;
    let body = vec![b'x'; 40_000];
    let response = [format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(), &body].concat();
    let (asked, answered) = (u32::try_from(REQUEST.len())?, u32::try_from(response.len())?);
    let mut packets = vec![Shape::Ethernet.packet(true, 0, "S", b""), Shape::Ethernet.packet(false, 0, "SA", b"")];
    for at in 0..EXCHANGES {
        packets.push(Shape::Ethernet.packet(true, 1 + at * asked, "A", REQUEST));
        packets.push(Shape::Ethernet.packet(false, 1 + at * answered, "A", &response));
    }
    let folder = tempfile::tempdir()?;
    let (path, config) = (folder.path().join("file"), folder.path().join("config.yaml"));
    fs::write(&path, pcap(1, &packets))?;
    fs::write(&config, TINY)?;
    // It must not hang either.
    let output = Command::new("timeout")
        .args(["60", env!("CARGO_BIN_EXE_ringtap"), "replay", "--json", "--config"])
        .args([&config, &path])
        .output()?;
    ensure!(output.status.code() == Some(0), "{:?}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    let stdout = String::from_utf8(output.stdout)?;
    let (summary, lines) =
        stdout.lines().rev().collect::<Vec<_>>().split_first().map(|(s, l)| (*s, l.len())).context("a summary")?;
    let summary: Value = serde_json::from_str(summary)?;
    ensure!(summary["balanced"] == true, "{summary:#}");
    ensure!(lines > 2 * EXCHANGES as usize, "an event and an object for each: {lines} lines, {summary:#}");
    Ok(())
}

/// A file that ends within a packet: what came before is delivered, and the error names the place.
#[test]
fn broken_files_are_named_with_their_place() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let packets = Shape::Ethernet.conversation();
    for whole in [pcap(1, &packets), pcapng(1, &packets)] {
        let (lines, summary, said, code) = replay(folder.path(), &whole[..whole.len() - 10], "egress")?;
        ensure!(code == Some(2) && said.contains("begins at byte"), "{said}");
        ensure!(lines.len() == 1 && summary["balanced"] == true, "{lines:?} {summary:#}");
        // Whatever bytes are changed, it ends by itself and says how.
        for at in (0..whole.len()).step_by(29) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x55;
            let (.., said, code) = replay(folder.path(), &bytes, "egress")?;
            ensure!(matches!(code, Some(0 | 2)), "byte {at}: {code:?} {said}");
        }
    }
    for (file, expected) in [(&b""[..], "neither"), (&b"hello, this is no capture file"[..], "neither")] {
        let (.., said, code) = replay(folder.path(), file, "egress")?;
        ensure!(code == Some(2) && said.contains(expected), "{said}");
    }
    let missing = Command::new(env!("CARGO_BIN_EXE_ringtap")).args(["replay", "/nonexistent"]).output()?;
    ensure!(missing.status.code() == Some(2));
    String::from_utf8(missing.stderr)?.contains("/nonexistent").then_some(()).context("the file is named")
}
