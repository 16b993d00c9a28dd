//! Conversations in HTTP/1 with holes anywhere: what is told without a mark is what was said.

use proptest::prelude::*;
use ringtap_exchange::{Cause, Connection, Direction, Exchange, Limits, Role};

/// Bytes of one direction, or a hole in it.
#[derive(Debug, Clone)]
struct Piece {
    sent: bool,
    offset: u64,
    bytes: Vec<u8>,
    missing: bool,
    /// A hole that nobody tells of: it shows in the offset of what follows.
    silent: bool,
}

#[derive(Debug, Clone)]
struct Plan {
    /// How many requests wait at once.
    depth: usize,
    /// Of each exchange: the form of its messages.
    forms: Vec<u8>,
    /// Bytes of a record.
    cut: usize,
    /// By direction: where a hole begins and how long it is, in parts of the stream; and whether it is told.
    holes: Vec<(bool, prop::sample::Index, u16, bool)>,
}

fn plan() -> impl Strategy<Value = Plan> {
    let hole = (any::<bool>(), any::<prop::sample::Index>(), 1u16..120, any::<bool>());
    let forms = prop::collection::vec(0u8..6, 1..12);
    (1usize..4, forms, 5usize..200, prop::collection::vec(hole, 0..4)).prop_map(|(depth, forms, cut, holes)| Plan {
        depth,
        forms,
        cut,
        holes,
    })
}

fn request(n: usize, form: u8) -> Vec<u8> {
    match form {
        0 | 1 => format!("GET /{n} HTTP/1.1\r\nHost: h\r\n\r\n").into(),
        2 => format!("HEAD /{n} HTTP/1.1\r\nHost: h\r\n\r\n").into(),
        3 => format!("POST /{n} HTTP/1.1\r\nHost: h\r\nContent-Length: 12\r\n\r\nquestion {n:03}").into(),
        _ => {
            format!("POST /{n} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nc\r\nquestion {n:03}\r\n0\r\n\r\n").into()
        }
    }
}

fn answer(n: usize) -> String {
    format!("answer {n:03} {}", "x".repeat(n % 5 * 17))
}

fn response(n: usize, form: u8) -> Vec<u8> {
    let body = answer(n);
    match form {
        2 => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).into(),
        1 | 4 => {
            let len = body.len();
            format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{len:x}\r\n{body}\r\n0\r\n\r\n").into()
        }
        _ => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into(),
    }
}

/// The records of the conversation in the order in which they were made.
fn pieces(plan: &Plan) -> Vec<Piece> {
    let mut messages = Vec::new();
    let (mut asked, mut answered) = (0, 0);
    while answered < plan.forms.len() {
        while asked < plan.forms.len() && asked < answered + plan.depth {
            messages.push((true, request(asked, plan.forms[asked])));
            asked += 1;
        }
        messages.push((false, response(answered, plan.forms[answered])));
        answered += 1;
    }
    let total = |sent| messages.iter().filter(|(s, _)| *s == sent).map(|(_, bytes)| bytes.len()).sum::<usize>();
    let seen = |sent: bool| -> usize {
        messages.iter().filter(|(s, _)| *s == sent).take(2).map(|(_, bytes)| bytes.len()).sum()
    };
    let holes: Vec<_> = plan
        .holes
        .iter()
        .map(|(sent, at, len, told)| {
            // A client that pipelines has been seen to do so before anything is lost.
            let seen = if plan.depth > 1 { seen(*sent) } else { 0 };
            let start = seen + at.index(total(*sent).saturating_sub(seen).max(1));
            (*sent, start..start + usize::from(*len), *told)
        })
        .collect();
    let (mut all, mut offsets) = (Vec::new(), [0_usize; 2]);
    for (sent, bytes) in messages {
        for record in bytes.chunks(plan.cut) {
            let offset = &mut offsets[usize::from(sent)];
            // A hole cuts a record where it begins and ends.
            for byte in record {
                let hole = holes.iter().find(|(s, range, _)| *s == sent && range.contains(offset));
                let (missing, silent) = (hole.is_some(), hole.is_some_and(|(.., told)| !told));
                push(&mut all, sent, *offset as u64, *byte, missing, silent);
                *offset += 1;
            }
            all.last_mut().expect("a record has bytes").1 = true;
        }
    }
    all.into_iter().map(|(piece, _)| piece).collect()
}

/// Adds a byte to the last piece, if it goes on there.
fn push(all: &mut Vec<(Piece, bool)>, sent: bool, offset: u64, byte: u8, missing: bool, silent: bool) {
    match all.last_mut() {
        Some((last, false)) if last.sent == sent && last.missing == missing && last.silent == silent => {
            last.bytes.push(byte);
        }
        _ => all.push((Piece { sent, offset, bytes: vec![byte], missing, silent }, false)),
    }
}

fn run(pieces: &[Piece]) -> Vec<Exchange> {
    let mut connection = Connection::new(Limits::default(), Some(Role::Client), false);
    let mut out = Vec::new();
    for piece in pieces {
        let direction = if piece.sent { Direction::Sent } else { Direction::Received };
        match piece {
            Piece { missing: true, silent: true, .. } => {}
            Piece { missing: true, .. } => {
                // What was lost silently before it shows now.
                let before = piece.offset - connection.next_offset(direction);
                let len = before + piece.bytes.len() as u64;
                connection.missing(direction, len, Cause::Unseen, 0, &mut out);
            }
            _ => connection.data(direction, piece.offset, &piece.bytes, 0, &mut out),
        }
    }
    let total = |sent| pieces.iter().rev().find(|p| p.sent == sent).map_or(0, |p| p.offset + p.bytes.len() as u64);
    connection.close(Some([total(true), total(false)]), 1, &mut out);
    out
}

/// What is wrong with an exchange.
fn fault(exchange: &Exchange, forms: &[u8]) -> Option<&'static str> {
    let Some(n) = exchange.request.target.strip_prefix('/').and_then(|n| n.parse::<usize>().ok()) else {
        return Some("a target that nobody asked for");
    };
    let Some(form) = forms.get(n) else { return Some("a target that nobody asked for") };
    let marked = !exchange.damage.is_empty();
    let question = if *form >= 3 { format!("question {n:03}") } else { String::new() };
    let whole = if *form == 2 { String::new() } else { answer(n) };
    let Some(response) = &exchange.response else { return (!marked).then_some("no response, and no mark") };
    let said = String::from_utf8_lossy(&response.body.bytes).into_owned();
    match marked {
        false if exchange.request.body.bytes != question.as_bytes() => Some("another request body"),
        false if said != whole => Some("another response body"),
        // Of these it is said that the pair rests on what came after a loss.
        true if exchange.damage.iter().any(|damage| damage.cause == Cause::Resync) => None,
        // What is kept of a damaged body is its beginning.
        true if !whole.starts_with(&said) => Some("another response"),
        _ => None,
    }
}

/// For people: what came out, and of what.
fn told_of(told: &[Exchange]) -> String {
    let line = |e: &Exchange| {
        let body = e.response.as_ref().map(|r| String::from_utf8_lossy(&r.body.bytes).into_owned());
        let causes: Vec<_> = e.damage.iter().map(|d| d.cause.as_str()).collect();
        format!("\n  {} {} → {body:?} {causes:?}", e.request.method, e.request.target)
    };
    told.iter().map(line).collect()
}

fn said(pieces: &[Piece]) -> String {
    let line = |p: &Piece| {
        let (way, hole) = (if p.sent { '>' } else { '<' }, if p.silent { "silent" } else { "missing" });
        format!("  {way} {} {:?}\n", if p.missing { hole } else { "" }, String::from_utf8_lossy(&p.bytes))
    };
    pieces.iter().map(line).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 50_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_told_without_a_mark_was_said(plan in plan()) {
        let pieces = pieces(&plan);
        let told = run(&pieces);
        for exchange in &told {
            let fault = fault(exchange, &plan.forms);
            prop_assert!(fault.is_none(), "{fault:?} in {}\n{}", told_of(&told), said(&pieces));
        }
        if plan.holes.is_empty() {
            prop_assert_eq!(told.len(), plan.forms.len());
        }
    }
}
