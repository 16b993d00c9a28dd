//! What the targets for connections share: an input as a script of records, and what must hold of any script.

use ringtap_exchange::{Cause, Connection, Direction, Exchange, Limits, Part, Role};

/// Memory that one connection may keep in these limits, all told.
const KEPT_MAX: usize = 4 << 20;

pub fn limits() -> Limits {
    Limits { body: 64 << 10, connection: 256 << 10, head: 16 << 10, pipeline: 64, held: 64 << 10, ..Limits::default() }
}

/// A piece of a stream: its direction and its bytes, or how many are missing.
pub enum Piece<'a> {
    Bytes(Direction, &'a [u8]),
    Missing(Direction, u64),
}

/// A script: of each piece two bytes say direction, kind and length.
pub fn script(mut input: &[u8], gaps: bool) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    while let Some(([how, len], rest)) = input.split_first_chunk() {
        let direction = if how & 1 == 0 { Direction::Sent } else { Direction::Received };
        let len = usize::from(*len) << (how >> 6);
        if gaps && how & 0x3e == 0x3e {
            pieces.push(Piece::Missing(direction, len as u64));
            input = rest;
        } else {
            let (bytes, behind) = rest.split_at(len.min(rest.len()));
            pieces.push(Piece::Bytes(direction, bytes));
            input = behind;
        }
    }
    pieces
}

fn data(connection: &mut Connection, direction: Direction, bytes: &[u8], time: u64, out: &mut Vec<Exchange>) {
    let at = connection.next_offset(direction);
    connection.data(direction, at, bytes, time, out);
    assert!(connection.kept_bytes() <= KEPT_MAX, "{} bytes are kept", connection.kept_bytes());
}

/// Runs a script on a connection that has gone so far; cut gives the place where each piece is cut in two.
pub fn run(mut connection: Connection, before: &[Piece<'_>], pieces: &[Piece<'_>], cut: Option<usize>) -> (Vec<Exchange>, bool) {
    let (mut out, mut certain) = (Vec::new(), true);
    for (time, piece) in before.iter().chain(pieces).enumerate() {
        let cut = cut.filter(|_| time >= before.len());
        match piece {
            Piece::Missing(direction, len) => connection.missing(*direction, *len, Cause::Unseen, time as u64, &mut out),
            Piece::Bytes(direction, bytes) => {
                let (first, second) = bytes.split_at(cut.map_or(0, |cut| cut % (bytes.len() + 1)));
                for part in [first, second] {
                    data(&mut connection, *direction, part, time as u64, &mut out);
                    certain &= !connection.has_lost_its_place();
                }
            }
        }
        certain &= !connection.has_lost_its_place();
    }
    let totals = [Direction::Sent, Direction::Received].map(|d| connection.next_offset(d));
    connection.close(Some(totals), u64::MAX, &mut out);
    assert_eq!(connection.kept_bytes(), 0);
    for exchange in &out {
        let bodies = [Some(&exchange.request.body), exchange.response.as_ref().map(|r| &r.body)];
        assert!(bodies.into_iter().flatten().all(|body| body.bytes.len() <= limits().body));
        // Of a message that is compressed and broken, how much can be read hangs on the records.
        certain &= bodies.into_iter().flatten().all(|body| !body.holed);
    }
    (out, certain)
}

/// What an exchange says, but for the places of its marks: they are those of records, and two marks at one place are one.
fn told(exchanges: &[Exchange]) -> Vec<String> {
    let line = |e: &Exchange| {
        let mut causes: Vec<(&str, bool)> = e.damage.iter().map(|d| (d.cause.as_str(), d.part == Part::Response)).collect();
        causes.sort_unstable();
        causes.dedup();
        format!("{:?} {:?} {:?} {causes:?} {} {:?}", e.request, e.response, e.times, e.closed_early, e.messages)
    };
    exchanges.iter().map(line).collect()
}

/// A script gives the same however its records are cut, as long as the place is never lost; with gaps, and joined late,
/// it ends.
pub fn check(input: &[u8], before: &[Piece<'_>]) {
    let Some((first, rest)) = input.split_first() else { return };
    let role = [None, Some(Role::Client), Some(Role::Server), Some(Role::Client)][usize::from(first & 3)];
    let role = if before.is_empty() { role } else { Some(Role::Client) };
    let late = first & 4 != 0 && before.is_empty();
    let pieces = script(rest, first & 8 != 0);
    let (whole, certain) = run(Connection::new(limits(), role, late), before, &pieces, None);
    if late || first & 8 != 0 || role.is_none() || !certain {
        return;
    }
    let (cut, certain) = run(Connection::new(limits(), role, late), before, &pieces, Some(usize::from(first >> 4) * 7 + 1));
    if certain {
        assert_eq!(told(&whole), told(&cut));
    }
}
