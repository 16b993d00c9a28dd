//! The tables that header fields are looked up in.

use std::collections::VecDeque;

/// Header fields that every connection knows (RFC 7541, appendix A).
const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

/// What an entry counts besides its bytes (RFC 7541, section 4.1).
const ENTRY_OVERHEAD: usize = 32;
/// The table's size before anybody changes it.
const SIZE_DEFAULT: usize = 4096;
/// Of larger tables only the newest entries are kept; the others are unknown.
const STORED_MAX: usize = 64 << 10;

/// A name and a value, as far as they are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found<'a> {
    Field(&'a [u8], &'a [u8]),
    /// The field exists and cannot be told, since what put it there was not seen.
    Unknown,
    /// There is no such field.
    Nothing,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    /// Places in `text`, counted from the first byte ever added.
    start: u64,
    name_len: u32,
    value_len: u32,
    name_known: bool,
}

impl Entry {
    fn len(self) -> usize {
        self.name_len as usize + self.value_len as usize
    }

    fn size(self) -> usize {
        self.len() + ENTRY_OVERHEAD
    }
}

/// The fields that a peer has sent before, newest first; those that were added while nobody looked are unknown.
#[derive(Debug)]
pub(super) struct Table {
    /// Newest at the back.
    entries: VecDeque<Entry>,
    text: Vec<u8>,
    /// Place of the first byte of `text`.
    text_start: u64,
    size: usize,
    max: usize,
    /// Below the entries that are known lie others that are not.
    unknown_below: bool,
}

impl Default for Table {
    fn default() -> Self {
        let text = Vec::new();
        Self { entries: VecDeque::new(), text, text_start: 0, size: 0, max: SIZE_DEFAULT, unknown_below: false }
    }
}

impl Table {
    /// Bytes of memory.
    pub(super) fn kept_bytes(&self) -> usize {
        self.text.capacity() + self.entries.capacity() * size_of::<Entry>()
    }

    /// Nothing of what lies in the table is known any more. What is added from now on is: an index counts from the
    /// newest entry, so that no entry that was missed can be taken for one that was seen.
    pub(super) fn forget(&mut self) {
        self.entries.clear();
        self.text.clear();
        self.size = 0;
        // The peer's size may have been changed unseen. Too large a size keeps entries that are never asked for.
        self.max = STORED_MAX;
        self.unknown_below = true;
    }

    /// Looks up by index, which counts from 1, the fields that every connection knows first.
    pub(super) fn get(&self, index: usize) -> Found<'_> {
        let Some(place) = index.checked_sub(1) else { return Found::Nothing };
        if let Some((name, value)) = STATIC.get(place) {
            return Found::Field(name.as_bytes(), value.as_bytes());
        }
        let age = place - STATIC.len();
        let entry = self.entries.len().checked_sub(age + 1).map(|at| self.entries[at]);
        match entry {
            Some(entry) if entry.name_known => {
                let text = self.text_of(entry);
                let (name, value) = text.split_at(entry.name_len as usize);
                Found::Field(name, value)
            }
            Some(_) => Found::Unknown,
            None if self.unknown_below => Found::Unknown,
            None => Found::Nothing,
        }
    }

    fn text_of(&self, entry: Entry) -> &[u8] {
        let start = usize::try_from(entry.start - self.text_start).unwrap_or(usize::MAX);
        self.text.get(start..start + entry.len()).unwrap_or_default()
    }

    /// Adds a field; `None` for a name that cannot be told.
    pub(super) fn add(&mut self, name: Option<&[u8]>, value: &[u8]) {
        let known = name.unwrap_or_default();
        let (Ok(name_len), Ok(value_len)) = (u32::try_from(known.len()), u32::try_from(value.len())) else { return };
        let start = self.text_start + self.text.len() as u64;
        let entry = Entry { start, name_len, value_len, name_known: name.is_some() };
        self.shrink_to(self.max.min(STORED_MAX).saturating_sub(entry.size()));
        if entry.size() > self.max {
            // An entry that does not fit empties the table and is not added.
            return;
        }
        if entry.size() > STORED_MAX {
            self.unknown_below = true;
            return;
        }
        self.text.extend_from_slice(known);
        self.text.extend_from_slice(value);
        self.size += entry.size();
        self.entries.push_back(entry);
    }

    /// The peer has changed the table's size.
    pub(super) fn resize(&mut self, max: usize) {
        self.max = max;
        if max == 0 {
            // An empty table is known as a whole.
            self.unknown_below = false;
        }
        self.shrink_to(max.min(STORED_MAX));
    }

    fn shrink_to(&mut self, size: usize) {
        while self.size > size {
            let Some(entry) = self.entries.pop_front() else { break };
            self.size -= entry.size();
            // Evicted for want of room of ours, not of the peer's.
            self.unknown_below |= self.max > STORED_MAX;
        }
        let first = self.entries.front().map_or(self.text_start + self.text.len() as u64, |entry| entry.start);
        let unused = usize::try_from(first - self.text_start).unwrap_or(0);
        if unused > self.text.len() / 2 {
            self.text.drain(..unused);
            self.text_start = first;
        }
    }
}
