//! Server-sent events: blocks of lines, each block ended by an empty line.

use crate::messages::{Dialect, Kind, Message, Messages};

/// What of a line decides whether it carries data.
const FIELD: &[u8] = b"data";
/// A byte order mark in UTF-8.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// Counts the events of a stream, fed at any split.
#[derive(Debug)]
pub(crate) struct Scanner {
    found: Messages,
    /// Bytes of the body so far.
    at: u64,
    /// Where the present event began.
    start: u64,
    /// First bytes of the present line, as many as matter.
    line: Vec<u8>,
    has_data: bool,
    /// A line has ended.
    begun: bool,
    /// The last byte was a carriage return: a line feed right behind it belongs to it.
    returned: bool,
    /// Lines are missing: what follows begins with the next event.
    lost: bool,
}

impl Default for Scanner {
    fn default() -> Self {
        Self {
            found: Messages::new(Dialect::ServerSentEvents),
            at: 0,
            start: 0,
            line: Vec::new(),
            has_data: false,
            begun: false,
            returned: false,
            lost: false,
        }
    }
}

impl Scanner {
    pub(crate) fn feed(&mut self, mut data: &[u8], time: u64) {
        if self.returned && data.first() == Some(&b'\n') {
            self.start += u64::from(self.start == self.at);
            self.at += 1;
            data = &data[1..];
        }
        while !data.is_empty() {
            self.returned = false;
            let end = memchr::memchr2(b'\n', b'\r', data);
            let line = &data[..end.unwrap_or(data.len())];
            let room = (MARK.len() + FIELD.len() + 1).saturating_sub(self.line.len());
            self.line.extend_from_slice(&line[..line.len().min(room)]);
            self.at += line.len() as u64;
            data = &data[line.len()..];
            if end.is_none() {
                return;
            }
            let wide = if data.starts_with(b"\r\n") { 2 } else { 1 };
            self.returned = data == b"\r";
            data = &data[wide..];
            self.end_line(wide as u64, time);
        }
    }

    fn end_line(&mut self, ending: u64, time: u64) {
        let line = std::mem::take(&mut self.line);
        // One can stand before all else.
        let first = !std::mem::replace(&mut self.begun, true);
        let line = line.strip_prefix(MARK).filter(|_| first).unwrap_or(&line);
        if !line.is_empty() {
            self.has_data |= line == FIELD || line.starts_with(b"data:");
            self.at += ending;
            return;
        }
        let len = self.at - self.start;
        let (has_data, lost) = (std::mem::take(&mut self.has_data), std::mem::take(&mut self.lost));
        if has_data && !lost {
            self.found.push(Message { time, kind: Kind::Data, compressed: false, wire: len, start: self.start, len });
        }
        self.at += ending;
        self.start = self.at;
    }

    pub(crate) fn skip(&mut self, len: u64) {
        self.at = self.at.saturating_add(len);
        self.line.clear();
        self.line.extend_from_slice(b"?");
        self.lost = true;
    }

    pub(crate) fn kept_bytes(&self) -> usize {
        self.found.kept_bytes() + self.line.len()
    }

    pub(crate) fn finish(self) -> Messages {
        self.found
    }
}

#[cfg(test)]
mod tests {
    use super::Scanner;

    fn events(parts: &[&[u8]]) -> Vec<(u64, u64)> {
        let mut scanner = Scanner::default();
        for part in parts {
            scanner.feed(part, 0);
        }
        scanner.finish().listed.iter().map(|m| (m.start, m.len)).collect()
    }

    /// Comments, fields without data, all three line ends, and a last event that is not ended.
    #[test]
    fn events_are_found_at_every_split() {
        let stream =
            b": hello\n\nevent: a\ndata: 1\n\nid: 3\n\ndata\r\n\r\ndata: x\rdata: y\r\rdatabase: no\n\ndata: cut";
        let whole = events(&[stream]);
        let texts: Vec<_> = whole
            .iter()
            .map(|(start, len)| {
                &stream[usize::try_from(*start).expect("small")..][..usize::try_from(*len).expect("small")]
            })
            .map(|text| std::str::from_utf8(text).expect("text"))
            .collect();
        assert_eq!(texts, ["event: a\ndata: 1\n", "data\r\n", "data: x\rdata: y\r"]);
        for split in 0..=stream.len() {
            assert_eq!(events(&[&stream[..split], &stream[split..]]), whole, "split at {split}");
        }
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(events(&bytes), whole);
    }

    #[test]
    fn an_event_with_a_hole_is_none() {
        let mut scanner = Scanner::default();
        scanner.feed(b"data: 1\n\ndata: 2", 1);
        scanner.skip(10);
        scanner.feed(b"more\n\ndata: 3\n\n", 2);
        assert_eq!(scanner.finish().listed.iter().map(|m| m.time).collect::<Vec<_>>(), [1, 2]);
    }
}
