//! Recordings (`.rtap`): an Arrow IPC stream of raw records batches.
//!
//! Between the kernel's rows stand rows of our own: [`Kind::Clock`] wherever the offset to wall time changes, and
//! [`Kind::Process`] before the first row of a process. Payload is compact: a batch holds its rows' bytes and nothing
//! else of the ring.
//!
//! Behind the stream's end, where readers of Arrow do not look, stands a [`seal`]: a checksum of every message. A
//! recording that was not finished has none.

mod read;
mod redact;
mod seal;
mod write;

pub use read::{RecordedProcesses, Recording, RecordingError};
pub use redact::Redactor;
pub use write::Recorder;

/// What a process row's payload says, as JSON.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct ProcessRow {
    exe: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uid: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    details: Vec<(String, String)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tags: Vec<String>,
}

/// Keys of the stream schema's metadata.
const HOST: &str = "ringtap.host";
const VERSION: &str = "ringtap.version";

#[cfg(test)]
mod tests;
