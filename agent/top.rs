//! `ringtap top`: the transactions of a running agent in a terminal, as they come.
//!
//! What they say comes from anybody: nothing of it drives the terminal.

mod screen;

use std::{
    collections::VecDeque,
    io::IsTerminal as _,
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use http_body_util::BodyExt as _;
use hyper::{StatusCode, body::Incoming};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use serde::Deserialize;
use tokio::sync::mpsc;

use crate::{ask, cli::TopArgs};

/// Rows that are kept.
const ROWS_MAX: usize = 10_000;
/// How often the screen is drawn anew.
const FRAME: Duration = Duration::from_millis(100);
/// Before the agent is asked again after it was gone.
const AGAIN: Duration = Duration::from_secs(1);
/// Rates are those of so long.
const WINDOW: Duration = Duration::from_secs(10);
/// Bytes of one event; longer ones are no events.
const EVENT_MAX: usize = 1 << 20;

/// What the list shows of a transaction; see `devtools/summary.rs`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Row {
    seq: u64,
    id: String,
    phase: String,
    time: String,
    duration: f64,
    method: String,
    status: u16,
    host: String,
    url: String,
    path: String,
    protocol: String,
    pid: u32,
    process: Option<String>,
    container: Option<String>,
    pod: Option<String>,
    tls: Option<String>,
    request_size: u64,
    response_size: u64,
    response_type: Option<String>,
    source: String,
    destination: String,
    damage: usize,
    grpc_status: Option<u8>,
}

impl Row {
    fn has_failed(&self) -> bool {
        self.status >= 400 || self.damage > 0 || self.grpc_status.is_some_and(|status| status > 0)
    }
}

/// What the stream says.
enum News {
    Host(String),
    Row(Box<Row>),
    Gone(String),
    /// There is no use in asking again.
    Refused(String),
}

/// What is on the screen.
#[derive(Default)]
struct State {
    host: String,
    trouble: Option<String>,
    rows: VecDeque<Row>,
    recent: VecDeque<(Instant, f64, bool)>,
    /// The last one that was taken in, so that nothing comes twice after a break.
    last: Option<u64>,
    total: u64,
    paused: Option<VecDeque<Row>>,
    failed_only: bool,
    words: String,
    typing: bool,
    /// Number of the row that is chosen; none: the newest.
    chosen: Option<u64>,
    opened: bool,
}

/// Shows what comes until `q`.
///
/// # Errors
///
/// No agent answers, it does not serve `/devtools`, or this is no terminal.
pub fn top(arguments: &TopArgs) -> anyhow::Result<()> {
    let address = arguments.agent.0.context("`--agent` names no address")?;
    anyhow::ensure!(std::io::stdout().is_terminal(), "this is no terminal; /devtools/api/events is for programs");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let query: String = form_urlencoded::Serializer::new(String::new()).append_pair("expr", &arguments.rule).finish();
    let path = format!("/devtools/api/events?{query}");
    let token = arguments.dev_tools_token.clone();
    // The first answer decides whether there is anything to show.
    let first = runtime.block_on(connect(address, &path, token.as_deref()))?;
    let (sender, news) = mpsc::channel(1024);
    runtime.spawn(async move { follow(first, address, path, token, sender).await });
    let mut terminal = ratatui::try_init().context("cannot take over the terminal")?;
    let shown = show(&mut terminal, news);
    ratatui::restore();
    runtime.shutdown_background();
    shown
}

async fn connect(address: SocketAddr, path: &str, token: Option<&str>) -> anyhow::Result<Incoming> {
    let answer = ask::open(address, path, token).await?;
    let answer = answer.with_context(|| format!("no agent answers at {address}; `--agent` says where it listens"))?;
    match answer.status() {
        StatusCode::OK => Ok(answer.into_body()),
        StatusCode::UNAUTHORIZED => {
            anyhow::bail!("the agent asks for a token: --dev-tools-token, or RINGTAP_DEVTOOLS_TOKEN")
        }
        _ => {
            let why = answer.into_body().collect().await?.to_bytes();
            anyhow::bail!("{}", String::from_utf8_lossy(&why).trim())
        }
    }
}

async fn follow(first: Incoming, address: SocketAddr, path: String, token: Option<String>, to: mpsc::Sender<News>) {
    let mut body = Some(first);
    loop {
        let gone = match body.take() {
            Some(body) => read(body, &to).await,
            None => match connect(address, &path, token.as_deref()).await {
                Ok(next) => {
                    body = Some(next);
                    continue;
                }
                Err(error) => error.to_string(),
            },
        };
        if to.send(News::Gone(gone)).await.is_err() {
            return;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Hands events on until the stream ends; says why it did.
async fn read(mut body: Incoming, to: &mpsc::Sender<News>) -> String {
    let mut rest = Vec::new();
    loop {
        let frame = match body.frame().await {
            None => return "the agent has ended".into(),
            Some(Err(error)) => return error.to_string(),
            Some(Ok(frame)) => frame,
        };
        let Some(data) = frame.data_ref() else { continue };
        rest.extend_from_slice(data);
        while let Some(end) = rest.windows(2).position(|two| two == b"\n\n") {
            let event: Vec<u8> = rest.drain(..end + 2).collect();
            if let Some(news) = understand(&String::from_utf8_lossy(&event))
                && to.send(news).await.is_err()
            {
                return String::new();
            }
        }
        if rest.len() > EVENT_MAX {
            let _ = to.send(News::Refused("what answers there is no agent".into())).await;
            return String::new();
        }
    }
}

fn understand(event: &str) -> Option<News> {
    let line = |name: &str| event.lines().find_map(|line| line.strip_prefix(name));
    let data = line("data: ")?;
    match line("event: ")? {
        "request.http_transaction" => serde_json::from_str(data).ok().map(|row| News::Row(Box::new(row))),
        "system.connected" => {
            let said: serde_json::Value = serde_json::from_str(data).ok()?;
            Some(News::Host(said["host"].as_str().unwrap_or_default().to_owned()))
        }
        _ => None,
    }
}

fn show(terminal: &mut ratatui::DefaultTerminal, mut news: mpsc::Receiver<News>) -> anyhow::Result<()> {
    let mut state = State::default();
    loop {
        while let Ok(one) = news.try_recv() {
            state.take(one)?;
        }
        state.forget(Instant::now());
        terminal.draw(|frame| screen::draw(frame, &state))?;
        let until = Instant::now() + FRAME;
        while event::poll(until.saturating_duration_since(Instant::now()))? {
            if let Event::Key(key) = event::read()?
                && key.kind == KeyEventKind::Press
                && state.key(key.code, key.modifiers)
            {
                return Ok(());
            }
        }
    }
}

impl State {
    fn take(&mut self, news: News) -> anyhow::Result<()> {
        match news {
            News::Host(host) => (self.host, self.trouble) = (host, None),
            News::Gone(why) => self.trouble = Some(why),
            News::Refused(why) => anyhow::bail!(why),
            News::Row(row) => {
                if self.last.is_some_and(|last| row.seq <= last && last - row.seq < ROWS_MAX as u64) {
                    return Ok(());
                }
                self.last = Some(row.seq);
                if row.phase != "started" {
                    self.total += 1;
                    self.recent.push_back((Instant::now(), row.duration, row.has_failed()));
                }
                let rows = self.paused.as_mut().unwrap_or(&mut self.rows);
                // One that lasted was told of when it began.
                let lasted = row.phase == "ended";
                let begun =
                    rows.iter_mut().rev().find(|begun| lasted && begun.phase == "started" && begun.id == row.id);
                match begun {
                    Some(begun) => *begun = Row { seq: begun.seq, ..*row },
                    None => rows.push_back(*row),
                }
                if rows.len() > ROWS_MAX {
                    rows.pop_front();
                }
            }
        }
        Ok(())
    }

    fn forget(&mut self, now: Instant) {
        while self.recent.front().is_some_and(|(at, ..)| now.duration_since(*at) > WINDOW) {
            self.recent.pop_front();
        }
    }

    /// The rows that are listed, the newest first.
    fn listed(&self) -> impl Iterator<Item = &Row> {
        let words: Vec<String> = self.words.split_whitespace().map(str::to_lowercase).collect();
        let wanted = move |row: &&Row| {
            let text = || {
                let process = row.process.as_deref().unwrap_or_default();
                format!("{} {} {} {process} {}", row.method, row.status, row.url, row.host).to_lowercase()
            };
            (!self.failed_only || row.has_failed())
                && (words.is_empty() || words.iter().all(|word| text().contains(word)))
        };
        self.rows.iter().rev().filter(wanted)
    }

    /// Does what a key asks for; says whether it asks for the end.
    fn key(&mut self, key: KeyCode, modifiers: KeyModifiers) -> bool {
        if key == KeyCode::Char('c') && modifiers.contains(KeyModifiers::CONTROL) {
            return true;
        }
        if self.typing {
            match key {
                KeyCode::Enter => self.typing = false,
                KeyCode::Esc => (self.typing, self.words) = (false, String::new()),
                KeyCode::Backspace => drop(self.words.pop()),
                KeyCode::Char(c) => self.words.push(c),
                _ => {}
            }
            return false;
        }
        match key {
            KeyCode::Char('q') => return true,
            KeyCode::Esc if self.opened => self.opened = false,
            KeyCode::Esc => (self.chosen, self.words) = (None, String::new()),
            KeyCode::Char('/') => self.typing = true,
            KeyCode::Char('e') => self.failed_only = !self.failed_only,
            KeyCode::Char('p' | ' ') => self.pause(),
            KeyCode::Enter => {
                self.choose(0);
                self.opened = !self.opened;
            }
            KeyCode::Down | KeyCode::Char('j') => self.choose(1),
            KeyCode::Up | KeyCode::Char('k') => self.choose(-1),
            KeyCode::PageDown => self.choose(20),
            KeyCode::PageUp => self.choose(-20),
            KeyCode::Home => self.chosen = None,
            _ => {}
        }
        false
    }

    fn pause(&mut self) {
        match self.paused.take() {
            None => self.paused = Some(VecDeque::new()),
            Some(held) => {
                self.rows.extend(held);
                while self.rows.len() > ROWS_MAX {
                    self.rows.pop_front();
                }
            }
        }
    }

    fn choose(&mut self, by: isize) {
        let listed: Vec<u64> = self.listed().map(|row| row.seq).collect();
        let at = self.chosen.and_then(|seq| listed.iter().position(|one| *one == seq));
        let next = at.map_or(0, |at| at.saturating_add_signed(by)).min(listed.len().saturating_sub(1));
        self.chosen = listed.get(next).copied();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        let mut state = State::default();
        for seq in 0..50u64 {
            let status = if seq % 10 == 0 { 503 } else { 200 };
            let row = Row { seq, status, url: format!("http://a/{seq}"), ..Row::default() };
            state.take(News::Row(Box::new(row))).expect("taken");
        }
        state
    }

    #[test]
    fn rows_are_listed_once_and_by_words() {
        let mut state = state();
        state.take(News::Row(Box::new(Row { seq: 49, ..Row::default() }))).expect("taken");
        assert_eq!((state.total, state.listed().count()), (50, 50));
        state.key(KeyCode::Char('e'), KeyModifiers::NONE);
        assert_eq!(state.listed().count(), 5);
        for c in "/A/40".chars() {
            state.key(KeyCode::Char(c), KeyModifiers::NONE);
        }
        assert_eq!(state.listed().map(|row| row.seq).collect::<Vec<_>>(), [40]);
    }

    #[test]
    fn one_that_lasts_is_one_row() {
        let mut state = state();
        for (seq, phase) in [(50, "started"), (51, "ended")] {
            let row = Row { seq, phase: phase.into(), id: "a".into(), ..Row::default() };
            state.take(News::Row(Box::new(row))).expect("taken");
        }
        let last = state.listed().next().expect("there");
        assert_eq!((state.total, state.rows.len(), last.seq, last.phase.as_str()), (51, 51, 50, "ended"));
    }

    #[test]
    fn what_was_chosen_stays_while_others_come() {
        let mut state = state();
        state.key(KeyCode::Down, KeyModifiers::NONE);
        state.key(KeyCode::Down, KeyModifiers::NONE);
        assert_eq!(state.chosen, Some(48));
        state.take(News::Row(Box::new(Row { seq: 50, ..Row::default() }))).expect("taken");
        assert_eq!(state.chosen, Some(48));
        state.key(KeyCode::Char('p'), KeyModifiers::NONE);
        state.take(News::Row(Box::new(Row { seq: 51, ..Row::default() }))).expect("taken");
        assert_eq!(state.rows.len(), 51);
        state.key(KeyCode::Char('p'), KeyModifiers::NONE);
        assert_eq!(state.rows.len(), 52);
        assert!(state.key(KeyCode::Char('q'), KeyModifiers::NONE));
    }
}
