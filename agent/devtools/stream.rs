//! Server-sent events: what is kept, and what comes.

use std::{convert::Infallible, fmt::Write as _, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::channel::{Channel, Sender};
use hyper::body::Frame;
use ringtap_batch::{grpc::Grpc, transactions::Transactions};
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;

use super::{Feed, Filter, Group, Next, summary::Summary};

/// After so long without an event the viewer is told that the stream still lives, and a viewer that is gone is noticed.
const PING: Duration = Duration::from_secs(10);
/// Pieces that wait for a slow viewer.
const PIECES: usize = 4;
/// A viewer that takes nothing for so long is left.
const STALLED: Duration = Duration::from_secs(30);

/// The body of an endless answer. `slot` is kept until it ends.
pub fn start(feed: Arc<Feed>, filter: Filter, hostname: String, slot: OwnedSemaphorePermit) -> Channel<Bytes> {
    let (sender, body) = Channel::new(PIECES);
    tokio::spawn(async move {
        // A viewer that is gone is nobody's fault.
        let _ = follow(&feed, &filter, &hostname, sender).await;
        drop(slot);
    });
    body
}

/// The viewer is gone.
struct Gone;

async fn follow(feed: &Feed, filter: &Filter, hostname: &str, mut to: Sender<Bytes, Infallible>) -> Result<(), Gone> {
    let mut more = feed.next.subscribe();
    let (mut seen, mut told, mut caught_up) = (feed.first(), feed.passed_over(), false);
    let hello = json!({
        "version": env!("CARGO_PKG_VERSION"), "host": hostname, "pid": std::process::id(), "passed_over": told,
    });
    send(&mut to, event("system.connected", None, &hello.to_string())).await?;
    loop {
        more.borrow_and_update();
        while let Next::Group(group, missed) = feed.after(seen) {
            seen = group.end();
            let passed_over = feed.passed_over();
            if missed > 0 || passed_over != told {
                told = passed_over;
                let lost = json!({"behind": missed, "passed_over": passed_over});
                send(&mut to, event("system.lost", None, &lost.to_string())).await?;
            }
            send(&mut to, rows(&group, filter)).await?;
        }
        if !caught_up {
            caught_up = true;
            send(&mut to, event("system.caught_up", None, "{}")).await?;
        }
        match tokio::time::timeout(PING, more.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Ok(()),
            Err(_) => send(&mut to, ": still here\n\n".to_owned()).await?,
        }
    }
}

async fn send(to: &mut Sender<Bytes, Infallible>, text: String) -> Result<(), Gone> {
    if text.is_empty() {
        return Ok(());
    }
    let sent = tokio::time::timeout(STALLED, to.send(Frame::data(Bytes::from(text)))).await;
    sent.map_err(|_| Gone)?.map_err(|_| Gone)
}

fn event(name: &str, id: Option<u64>, data: &str) -> String {
    let id = id.map_or_else(String::new, |id| format!("id: {id}\n"));
    format!("event: {name}\n{id}data: {data}\n\n")
}

/// The rows of a group that the viewer wants, each an event.
fn rows(group: &Group, filter: &Filter) -> String {
    let mut text = String::new();
    let Some(t) = Transactions::of(&group.batch) else { return text };
    for row in filter.of(&t).set_indices() {
        let seq = group.first + row as u64;
        let grpc = Grpc::of(&t, row);
        // Made of nothing that cannot be written; JSON has no line breaks of its own.
        let data = serde_json::to_string(&Summary::of(&t, row, seq, grpc.as_ref())).unwrap_or_default();
        let _ = write!(text, "event: request.http_transaction\nid: {seq}\ndata: {data}\n\n");
    }
    text
}

impl Group {
    fn end(&self) -> u64 {
        self.first + self.details.len() as u64
    }
}
