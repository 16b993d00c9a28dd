//! `ringtap show`: stored objects for people, as HAR, or as a curl command.
//!
//! What an object says comes from traffic, so from anybody: everything that is printed passes through [`visible`] or is
//! quoted, and no terminal is ever driven by it.

mod curl;
mod find;
mod har;
mod json;
mod object;
mod paint;
mod text;
mod visible;

use std::io::{self, Write as _};

pub use self::find::{Place, places};
use self::{
    find::Wanted,
    object::{Content, Object},
    paint::Paint,
};
use crate::{cli::ShowArgs, sink::SinkError};

/// Why nothing, or not everything, was shown.
#[derive(Debug, thiserror::Error)]
pub enum ShowError {
    /// It cannot be asked like this.
    #[error("{0}")]
    Usage(String),
    /// No store has it.
    #[error("no object {digest} in {places}{hint}")]
    NotFound {
        /// What was asked for.
        digest: String,
        /// Where it was looked for.
        places: String,
        /// What to do about it; may be empty.
        hint: &'static str,
    },
    /// Several objects begin like this.
    #[error("{prefix} is the beginning of {} objects; more digits are needed:\n  {}", .digests.len(), .digests.join("\n  "))]
    Ambiguous {
        /// What was asked for.
        prefix: String,
        /// Their digests.
        digests: Vec<String>,
    },
    /// The bytes are not those that were stored.
    #[error("{place}: the object was changed or is damaged: its bytes have the digest {found}, not {digest}")]
    Damaged {
        /// Where they came from.
        place: String,
        /// What they should have.
        digest: String,
        /// What they have.
        found: String,
    },
    /// It is no transaction, or not one that can be written like this.
    #[error("{digest}: {reason}")]
    Unfit {
        /// The object.
        digest: String,
        /// What stands against it.
        reason: String,
    },
    /// A file cannot be read.
    #[error("cannot read {place}: {error}")]
    Read {
        /// Which.
        place: String,
        /// Why not.
        error: io::Error,
    },
    /// A bucket does not give it.
    #[error(transparent)]
    Store(#[from] SinkError),
    /// Standard output takes no more.
    #[error("cannot write to standard output: {0}")]
    Write(io::Error),
}

impl ShowError {
    /// Whether another command line is what helps.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Usage(_))
    }
}

/// Prints what the arguments ask for, from these places.
///
/// # Errors
///
/// Something is not there, is not what its digest says, or cannot be written in this form.
pub fn show(arguments: &ShowArgs, places: &[Place]) -> Result<(), ShowError> {
    let wanted = find::find(arguments, places)?;
    let result = if arguments.har {
        print_har(&wanted, arguments.last.is_some())
    } else if arguments.curl {
        print_curl(&wanted, arguments.last.is_some())
    } else {
        print_text(&wanted, Paint::of(arguments.color))
    };
    match result {
        // Whoever reads has seen enough.
        Err(ShowError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

fn print(text: &str) -> Result<(), ShowError> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(ShowError::Write)
}

fn print_text(wanted: &[Wanted<'_>], paint: Paint) -> Result<(), ShowError> {
    for (n, wanted) in wanted.iter().enumerate() {
        let object = Object::read(wanted.load()?);
        let between = if n == 0 { "" } else { "\n" };
        print(&format!("{between}{}", text::render(&object, paint)))?;
    }
    Ok(())
}

/// The transactions; of what was not asked for by name, other objects are passed over.
fn transactions(
    wanted: &[Wanted<'_>],
    pass_over: bool,
    mut each: impl FnMut(&Object, &object::Transaction) -> Result<(), ShowError>,
) -> Result<(), ShowError> {
    let (mut passed_over, mut done) = (0, 0);
    for wanted in wanted {
        let object = Object::read(wanted.load()?);
        match &object.content {
            Content::Transaction(transaction) => {
                each(&object, transaction)?;
                done += 1;
            }
            _ if pass_over => passed_over += 1,
            other => return Err(ShowError::Unfit { digest: object.digest.clone(), reason: other.no_transaction() }),
        }
    }
    if passed_over > 0 {
        warn(&format!("{passed_over} of {} objects are no transactions in JSON, and left out", passed_over + done));
    }
    Ok(())
}

fn print_har(wanted: &[Wanted<'_>], pass_over: bool) -> Result<(), ShowError> {
    let mut log = har::Log::default();
    transactions(wanted, pass_over, |object, transaction| {
        log.add(&object.digest, transaction);
        Ok(())
    })?;
    print(&log.finish())
}

fn print_curl(wanted: &[Wanted<'_>], pass_over: bool) -> Result<(), ShowError> {
    let mut first = true;
    transactions(wanted, pass_over, |object, transaction| {
        let unfit = |reason| ShowError::Unfit { digest: object.digest.clone(), reason };
        let command = match curl::command(transaction) {
            Ok(command) => command,
            Err(reason) if pass_over => {
                warn(&format!("{} is left out: {reason}", object.digest));
                return Ok(());
            }
            Err(reason) => return Err(unfit(reason)),
        };
        for warning in &command.warnings {
            warn(&format!("{}: {warning}", object.digest));
        }
        print(&format!("{}{}\n", if first { "" } else { "\n" }, command.text))?;
        first = false;
        Ok(())
    })
}

/// An HTTP Archive of transactions in JSON; others are left out.
pub(crate) fn har_of(objects: impl Iterator<Item = bytes::Bytes>) -> String {
    let mut log = har::Log::default();
    for object in objects.map(Object::of) {
        if let Content::Transaction(transaction) = &object.content {
            log.add(&object.digest, transaction);
        }
    }
    log.finish()
}

/// The curl command that sends a request again, and behind it, as comments, why it may not do the same.
///
/// # Errors
///
/// Why there is none.
pub(crate) fn curl_of(object: &bytes::Bytes) -> Result<String, String> {
    let object = Object::of(object.clone());
    let Content::Transaction(transaction) = &object.content else { return Err(object.content.no_transaction()) };
    let command = curl::command(transaction)?;
    let warnings = command.warnings.iter().map(|warning| format!("# {}\n", visible::line(warning)));
    Ok(format!("{}\n{}", command.text, warnings.collect::<String>()))
}

/// A text that drives no terminal, on one line.
pub(crate) fn visible_line(text: &str) -> String {
    visible::line(text)
}

fn warn(text: &str) {
    eprintln!("ringtap: warning: {}", visible::line(text));
}
