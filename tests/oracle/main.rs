//! What hyper's clients and servers said to each other, against what is made of their bytes.

use std::collections::BTreeMap;

use proptest::prelude::*;
use ringtap_exchange::{Cause, Connection, Direction, Exchange, Limits, Role};

mod gaps;
mod hpack;
mod otlp;
mod talk;
#[path = "../common/tools.rs"]
mod tools;

use talk::{Meant, Write};

fn run(http2: bool, plan: &[(String, String, Vec<u8>)], parallel: usize, room: usize) -> (Vec<Write>, Vec<Meant>) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(talk::talk(http2, plan, parallel, room))
}

fn direction(client: bool) -> Direction {
    if client { Direction::Sent } else { Direction::Received }
}

/// Feeds writes in their order; of a write that is `missing` only the length is known.
fn feed(writes: &[Write], late: bool, missing: impl Fn(usize) -> bool) -> Vec<Exchange> {
    let mut connection = Connection::new(Limits::default(), Some(Role::Client), late);
    let mut out = Vec::new();
    for (n, (client, bytes)) in writes.iter().enumerate() {
        let direction = direction(*client);
        if missing(n) {
            connection.missing(direction, bytes.len() as u64, Cause::Unseen, n as u64, &mut out);
        } else {
            let at = connection.next_offset(direction);
            connection.data(direction, at, bytes, n as u64, &mut out);
        }
        assert!(connection.kept_bytes() < (64 << 20));
    }
    let totals = [Direction::Sent, Direction::Received].map(|d| connection.next_offset(d));
    connection.close(Some(totals), writes.len() as u64, &mut out);
    assert_eq!(connection.kept_bytes(), 0);
    out
}

fn told(exchange: &Exchange) -> Meant {
    let response = exchange.response.as_ref();
    Meant {
        method: exchange.request.method.clone(),
        target: exchange.request.target.clone(),
        request: exchange.request.body.bytes.clone(),
        status: response.map_or(0, |response| response.status),
        response: response.map(|response| response.body.bytes.clone()).unwrap_or_default(),
    }
}

/// By target, which no two requests share.
fn by_target(all: impl IntoIterator<Item = Meant>) -> BTreeMap<String, Meant> {
    all.into_iter().map(|one| (one.target.clone(), one)).collect()
}

/// What is told and was not meant so. A mark excuses what is missing, and nothing that is there.
fn wrong(told: &[Exchange], meant: &BTreeMap<String, Meant>) -> Option<String> {
    told.iter().find_map(|exchange| {
        let marked = !exchange.damage.is_empty() || exchange.closed_early;
        let found = self::told(exchange);
        let right = match meant.get(&found.target) {
            None => marked && found.target == "unknown",
            Some(meant) if marked => {
                meant.request.starts_with(&found.request)
                    && (found.status == 0 || found.status == meant.status)
                    && meant.response.starts_with(&found.response)
            }
            Some(meant) => found == *meant,
        };
        (!right).then(|| format!("{found:?} {:?}", exchange.damage))
    })
}

fn plan(sizes: &[(bool, u16, u16)]) -> Vec<(String, String, Vec<u8>)> {
    let one = |(n, (post, request, response)): (usize, &(bool, u16, u16))| {
        let body =
            if *post { vec![b'a' + u8::try_from(n % 26).expect("small"); usize::from(*request)] } else { Vec::new() };
        let method = if *post { "POST" } else { "GET" };
        (method.to_owned(), format!("/item/{n}/?q={n}/{response}"), body)
    };
    sizes.iter().enumerate().map(one).collect()
}

/// Sizes of bodies, most of them small.
fn sizes(count: usize) -> impl Strategy<Value = Vec<(bool, u16, u16)>> {
    let size = || prop_oneof![4 => 0u16..300, 1 => 0u16..40_000];
    proptest::collection::vec((any::<bool>(), size(), size()), 1..count)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Every exchange is told as it was meant, whole or cut anywhere, whichever direction is seen first.
    #[test]
    fn all_is_told_as_it_was_meant(
        http2: bool, sizes in sizes(40), parallel in 1usize..20, room in 100usize..60_000, order in any::<u64>(), cut in 1usize..50,
    ) {
        let (writes, meant) = run(http2, &plan(&sizes), parallel, room);
        let whole = feed(&writes, false, |_| false);
        let undamaged = whole.iter().all(|exchange| exchange.damage.is_empty() && !exchange.closed_early);
        prop_assert!(undamaged);
        prop_assert_eq!(whole.len(), meant.len());
        prop_assert_eq!(by_target(whole.iter().map(told)), by_target(meant.clone()));
        // Cut into small pieces.
        let pieces: Vec<Write> = writes
            .iter()
            .flat_map(|(client, bytes)| bytes.chunks(cut).map(|part| (*client, part.to_vec())))
            .collect();
        prop_assert_eq!(by_target(feed(&pieces, false, |_| false).iter().map(told)), by_target(meant.clone()));
        // In any order of the two directions, as threads of a process can be told of.
        let (mut sent, mut received): (Vec<_>, Vec<_>) = writes.iter().cloned().partition(|(client, _)| *client);
        let mut mixed = Vec::new();
        let mut order = order | 1;
        while !sent.is_empty() || !received.is_empty() {
            order ^= order << 13;
            order ^= order >> 7;
            order ^= order << 17;
            let first = if sent.is_empty() || (order % 2 == 0 && !received.is_empty()) { &mut received } else { &mut sent };
            mixed.push(first.remove(0));
        }
        prop_assert_eq!(by_target(feed(&mixed, false, |_| false).iter().map(told)), by_target(meant));
    }

    /// Without some writes, and joined late: what is told without a mark is what was meant.
    #[test]
    fn what_is_lost_is_marked(
        http2: bool, sizes in sizes(30), parallel in 1usize..10, lost in proptest::collection::vec(any::<prop::sample::Index>(), 0..4),
        late: bool, joined in any::<prop::sample::Index>(),
    ) {
        let (writes, meant) = run(http2, &plan(&sizes), parallel, 60_000);
        let meant = by_target(meant);
        let from = if late { joined.index(writes.len()) } else { 0 };
        let lost: Vec<usize> = lost.iter().map(|one| one.index(writes.len())).collect();
        let seen = &writes[from..];
        let told: Vec<Exchange> = feed(seen, late, |n| lost.contains(&(n + from)));
        prop_assert_eq!(wrong(&told, &meant), None);
        if lost.is_empty() && !late {
            prop_assert_eq!(told.len(), meant.len());
        }
    }
}

/// A hole inside of one body touches that exchange alone.
#[test]
fn a_hole_touches_only_what_it_touches() {
    let sizes: Vec<(bool, u16, u16)> = (0..20).map(|n| (false, 0, 10 + 5000 * u16::from(n == 7))).collect();
    for http2 in [false, true] {
        let (writes, meant) = run(http2, &plan(&sizes), 1, 600);
        // Part of the large response, in a write that holds nothing else.
        let inside = writes.iter().position(|(client, bytes)| !client && bytes.iter().all(u8::is_ascii_digit));
        let inside = inside.expect("a write inside of the large body");
        let told = feed(&writes, false, |n| n == inside);
        assert_eq!(told.len(), meant.len());
        let damaged: Vec<&str> =
            told.iter().filter(|e| !e.damage.is_empty()).map(|e| e.request.target.as_str()).collect();
        assert_eq!(damaged, [meant[7].target.as_str()], "http2: {http2}");
    }
}

/// Five exchanges one after the other, without any of their writes, joined at any.
#[test]
fn every_loss_of_a_few_writes_is_marked() {
    let sizes: Vec<(bool, u16, u16)> = (0..5).map(|n| (n % 2 == 1, 3, 10 + n)).collect();
    for http2 in [false, true] {
        let (writes, meant) = run(http2, &plan(&sizes), 1, 60_000);
        let meant = by_target(meant);
        // The first writes of HTTP/2 are greetings.
        let first = writes.len().saturating_sub(12);
        for lost in 0_u32..1 << (writes.len() - first) {
            for from in 0..writes.len() - 1 {
                let is_lost = |n: usize| n + from >= first && lost >> (n + from - first) & 1 == 1;
                let told = feed(&writes[from..], from > 0, is_lost);
                let wrong = wrong(&told, &meant);
                assert_eq!(wrong, None, "http2 {http2}, without {lost:b} behind {first}, from {from}");
            }
        }
    }
}
