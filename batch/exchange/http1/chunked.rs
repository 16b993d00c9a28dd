//! Chunked transfer coding, fed at any split.

use super::head;
use crate::exchange::Headers;

/// A chunk's size line, or all trailers, at most.
const LINE_MAX: usize = 16 * 1024;

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    SizeLine,
    Data(u64),
    DataEnd,
    Trailers,
}

/// What a step of decoding met.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step<'a> {
    /// Body bytes.
    Data(&'a [u8]),
    /// Everything given was used up.
    NeedMore,
    /// The body is over; these trailers follow it.
    End(Headers),
    /// Not chunked coding.
    Malformed,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chunked {
    state: State,
    line: Vec<u8>,
    /// A line of it ends otherwise than in CR LF, or has a CR inside: servers differ in what they make of that.
    odd: bool,
}

impl Chunked {
    pub(crate) fn new() -> Self {
        Self { state: State::SizeLine, line: Vec::new(), odd: false }
    }

    /// Whether servers differ about its lines.
    pub(crate) fn is_odd(&self) -> bool {
        self.odd
    }

    /// How many bytes may be missing now without losing the place: those of the present chunk.
    pub(crate) fn skippable(&self) -> u64 {
        match self.state {
            State::Data(left) => left,
            _ => 0,
        }
    }

    /// Passes over missing bytes of the present chunk.
    pub(crate) fn skip(&mut self, len: u64) {
        if let State::Data(left) = &mut self.state {
            *left -= len;
            if *left == 0 {
                self.state = State::DataEnd;
            }
        }
    }

    /// Takes one step; `bytes` moves on over what was used.
    pub(crate) fn step<'a>(&mut self, bytes: &mut &'a [u8]) -> Step<'a> {
        loop {
            match self.state {
                State::Data(left) => {
                    if bytes.is_empty() {
                        return Step::NeedMore;
                    }
                    let n = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
                    let (data, rest) = bytes.split_at(n);
                    *bytes = rest;
                    self.skip(n as u64);
                    return Step::Data(data);
                }
                State::SizeLine | State::DataEnd => {
                    let Some(done) = self.take_line(bytes) else { return Step::Malformed };
                    if !done {
                        return Step::NeedMore;
                    }
                    if !self.end_line() {
                        return Step::Malformed;
                    }
                }
                State::Trailers => return self.trailers(bytes),
            }
        }
    }

    /// Collects up to a line feed. `None`: too long; false: not yet ended.
    fn take_line(&mut self, bytes: &mut &[u8]) -> Option<bool> {
        let end = memchr::memchr(b'\n', bytes);
        let (line, rest) = bytes.split_at(end.map_or(bytes.len(), |at| at + 1));
        *bytes = rest;
        self.line.extend_from_slice(line);
        (self.line.len() <= LINE_MAX).then_some(end.is_some())
    }

    /// Acts on a whole line. False: it is not what the state expects.
    fn end_line(&mut self) -> bool {
        let line = std::mem::take(&mut self.line);
        self.odd |= memchr::memchr(b'\r', &line) != line.len().checked_sub(2);
        let line = line.trim_ascii();
        if self.state == State::DataEnd {
            self.state = State::SizeLine;
            return line.is_empty();
        }
        let digits = line.split(|b| matches!(b, b';' | b' ' | b'\t')).next().unwrap_or_default();
        let size = std::str::from_utf8(digits).ok().filter(|d| !d.starts_with('+'));
        match size.and_then(|d| u64::from_str_radix(d, 16).ok()) {
            Some(0) => self.state = State::Trailers,
            Some(size) => self.state = State::Data(size),
            None => return false,
        }
        true
    }

    fn trailers<'a>(&mut self, bytes: &mut &'a [u8]) -> Step<'a> {
        loop {
            let Some(done) = self.take_line(bytes) else { return Step::Malformed };
            if !done {
                return Step::NeedMore;
            }
            let empty_line = matches!(self.line.as_slice(), b"\n" | b"\r\n");
            if empty_line || self.line.ends_with(b"\n\n") || self.line.ends_with(b"\n\r\n") {
                return head::parse_trailers(&self.line).map_or(Step::Malformed, Step::End);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(parts: &[&[u8]]) -> (Vec<u8>, Option<Headers>, usize) {
        let (mut chunked, mut body) = (Chunked::new(), Vec::new());
        for part in parts {
            let mut bytes = *part;
            loop {
                match chunked.step(&mut bytes) {
                    Step::Data(data) => body.extend_from_slice(data),
                    Step::NeedMore => break,
                    Step::End(trailers) => return (body, Some(trailers), bytes.len()),
                    Step::Malformed => return (body, None, usize::MAX),
                }
            }
        }
        (body, None, 0)
    }

    #[test]
    fn decodes_at_every_split() {
        let wire = b"5;ext=1\r\nhello\r\n0A\r\n, the worl\r\n1\r\nd\r\n0\r\nX-Sum: 9\r\nY: z\r\n\r\nGET";
        for split in 0..=wire.len() {
            let (body, trailers, left) = decode(&[&wire[..split], &wire[split..]]);
            assert_eq!(body, b"hello, the world", "split at {split}");
            let trailers = trailers.expect("it ends");
            assert_eq!(trailers.get("x-sum"), Some("9"), "split at {split}");
            if split < wire.len() - 3 {
                assert_eq!(left, 3, "split at {split}");
            }
        }
    }

    #[test]
    fn refuses_what_is_not_chunked() {
        for wire in [&b"xyz\r\n"[..], b"-1\r\n", b"+5\r\nhello", b"2\r\nabc\r\n", b"\r\n"] {
            assert_eq!(decode(&[wire]).2, usize::MAX, "{}", wire.escape_ascii());
        }
    }
}
