//! Standard output, written by a thread of its own: a reader that is slow or gone stalls nobody.

use std::{
    io::{self, Write as _},
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    thread::JoinHandle,
    time::Duration,
};

use super::{Patience, SinkError};

/// Lines, or blocks of lines, that may wait.
const LINES_MAX: usize = 16_384;

/// Writes lines.
#[derive(Debug, Clone)]
pub struct Console(SyncSender<String>, Patience);

/// The writer's end, for the shutdown.
pub struct ConsoleThread(JoinHandle<()>, Receiver<()>);

impl Console {
    /// Starts the writer.
    ///
    /// # Errors
    ///
    /// No thread can be had.
    pub fn start(patience: Patience) -> io::Result<(Self, ConsoleThread)> {
        let (sender, lines) = sync_channel(LINES_MAX);
        let (done, ended) = sync_channel(1);
        let thread = std::thread::Builder::new().name("console".into()).spawn(move || {
            write(&lines);
            // Nobody may be waiting yet.
            let _ = done.try_send(());
        })?;
        Ok((Self(sender, patience), ConsoleThread(thread, ended)))
    }

    /// Hands over a line.
    ///
    /// # Errors
    ///
    /// Too many lines are waiting, or the reader of standard output is gone.
    pub fn line(&self, line: String) -> Result<(), SinkError> {
        match self.1 {
            Patience::None => self.0.try_send(line).map_err(|_| SinkError::Console),
            Patience::UntilRoom => self.0.send(line).map_err(|_| SinkError::Console),
        }
    }
}

impl ConsoleThread {
    /// Waits until all lines are written; every [`Console`] must be dropped before. False: a reader that does not read
    /// holds the rest up for longer than `limit`.
    pub fn join(self, limit: Duration) -> bool {
        match self.1.recv_timeout(limit) {
            Err(RecvTimeoutError::Timeout) => false,
            // A panic of the writer has already been reported by the panic hook.
            _ => self.0.join().is_ok(),
        }
    }
}

fn write(lines: &Receiver<String>) {
    let mut out = io::BufWriter::new(io::stdout());
    while let Ok(line) = lines.recv() {
        let mut next = Some(line);
        while let Some(line) = next {
            if writeln!(out, "{line}").is_err() {
                return;
            }
            next = lines.try_recv().ok();
        }
        if out.flush().is_err() {
            return;
        }
    }
}
