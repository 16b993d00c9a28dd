//! How long a body is, and its bytes as they come.

use super::chunked::{Chunked, Step};
use crate::{
    exchange::{Body, Head, Headers, Version},
    intake::Intake,
};

/// How the end of a body is found (RFC 9112, section 6.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Framing {
    /// So many bytes are left.
    Length(u64),
    /// Chunked transfer coding.
    Chunked(Chunked),
    /// All up to the end of the connection.
    UntilClose,
}

/// What a head says about the body.
pub(crate) struct Announced {
    pub(crate) framing: Framing,
    /// Lengths contradict each other; the framing is the reading that servers prefer.
    pub(crate) ambiguous: bool,
}

/// What feeding a body came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fed {
    NeedMore,
    End(Headers),
    Malformed,
}

/// The body of a request.
pub(crate) fn of_request(head: &Head, method: &str) -> Announced {
    if method == "CONNECT" {
        // What follows belongs to the tunnel, whatever the head says.
        return Announced { framing: Framing::Length(0), ambiguous: false };
    }
    let mut announced = announced(head, Framing::Length(0));
    // A request cannot last until the connection ends: servers differ in what they make of it.
    announced.ambiguous |= announced.framing == Framing::UntilClose;
    announced
}

/// The body of a response to `method`.
pub(crate) fn of_response(head: &Head, status: u16, method: &str) -> Announced {
    if method == "HEAD" || matches!(status, 100..=199 | 204 | 304) {
        return Announced { framing: Framing::Length(0), ambiguous: false };
    }
    announced(head, Framing::UntilClose)
}

fn announced(head: &Head, otherwise: Framing) -> Announced {
    let mut plain = head.headers.get_all("content-length");
    if head.headers.get("transfer-encoding").is_none()
        && let (Some(length), None) = (plain.next(), plain.next())
        && !length.is_empty()
        && length.bytes().all(|byte| byte.is_ascii_digit())
        && let Ok(length) = length.parse()
    {
        // As nearly all are.
        return Announced { framing: Framing::Length(length), ambiguous: false };
    }
    let codings: Vec<&str> =
        head.headers.get_all("transfer-encoding").flat_map(|v| v.split(',')).map(str::trim).collect();
    // An old name for none, which some do not know any more.
    let identity = codings.iter().all(|coding| coding.eq_ignore_ascii_case("identity"));
    let doubtful = identity && !codings.is_empty();
    let codings = if identity { Vec::new() } else { codings };
    let lengths: Vec<&str> = head.headers.get_all("content-length").flat_map(|v| v.split(',')).map(str::trim).collect();
    if let Some(last) = codings.last() {
        let chunked = last.eq_ignore_ascii_case("chunked");
        let framing = if chunked { Framing::Chunked(Chunked::new()) } else { Framing::UntilClose };
        let misplaced = codings[..codings.len() - 1].iter().any(|coding| coding.eq_ignore_ascii_case("chunked"));
        // HTTP/1.0 has no codings: some servers read them all the same (RFC 9112, section 6.1).
        let ambiguous = !lengths.is_empty() || misplaced || head.version == Version::Http10;
        return Announced { framing, ambiguous };
    }
    let Some(first) = lengths.first() else { return Announced { framing: otherwise, ambiguous: false } };
    let digits = !first.is_empty() && first.bytes().all(|b| b.is_ascii_digit());
    match first.parse() {
        Ok(length) if digits => Announced {
            framing: Framing::Length(length),
            ambiguous: doubtful || lengths.iter().any(|other| other != first),
        },
        _ => Announced { framing: otherwise, ambiguous: true },
    }
}

impl Framing {
    /// Takes what belongs to the body; `bytes` moves on over it.
    pub(crate) fn feed(&mut self, bytes: &mut &[u8], intake: &mut Intake<'_>) -> Fed {
        match self {
            Self::Length(left) => {
                let n = usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
                let (data, rest) = bytes.split_at(n);
                intake.take(data);
                *bytes = rest;
                *left -= n as u64;
                if *left == 0 { Fed::End(Headers::default()) } else { Fed::NeedMore }
            }
            Self::Chunked(chunked) => loop {
                match chunked.step(bytes) {
                    Step::Data(data) => intake.take(data),
                    Step::NeedMore => return Fed::NeedMore,
                    Step::End(trailers) => return Fed::End(trailers),
                    Step::Malformed => return Fed::Malformed,
                }
            },
            Self::UntilClose => {
                intake.take(bytes);
                *bytes = &[];
                Fed::NeedMore
            }
        }
    }

    /// Whether servers differ about where it ends.
    pub(crate) fn is_odd(&self) -> bool {
        matches!(self, Self::Chunked(chunked) if chunked.is_odd())
    }

    /// Passes over missing bytes. False: the place in the stream is lost.
    pub(crate) fn skip(&mut self, len: u64, body: &mut Body) -> bool {
        let fits = len <= self.skippable();
        match self {
            Self::Length(left) if fits => *left -= len,
            Self::Chunked(chunked) if fits => chunked.skip(len),
            _ => {}
        }
        if fits {
            body.size = body.size.saturating_add(len);
        }
        body.holed |= !(fits && body.cut.is_some());
        fits
    }

    /// How many bytes may be missing from here on without losing the place.
    pub(crate) fn skippable(&self) -> u64 {
        match self {
            Self::Length(left) => *left,
            Self::Chunked(chunked) => chunked.skippable(),
            Self::UntilClose => u64::MAX,
        }
    }

    /// Length of what is left, where the head announced it.
    pub(crate) fn announced(&self) -> Option<u64> {
        if let Self::Length(left) = self { Some(*left) } else { None }
    }

    /// Whether nothing more belongs to the body.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self, Self::Length(0))
    }
}
