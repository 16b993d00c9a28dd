//! What may be kept of a connection, and what is so at the moment.

/// What is kept of a connection at most.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of one body that are kept.
    pub body: usize,
    /// Bytes that the open exchanges of the connection keep; beyond, bodies are cut.
    pub connection: usize,
    /// Whether bodies are kept at all.
    pub bodies: bool,
    /// A body of so many bytes is worth the question whether it is wanted.
    pub large: usize,
    /// Bytes of one head.
    pub head: usize,
    /// Requests that wait for their response.
    pub pipeline: usize,
    /// Response bytes that are held because their request was not seen yet.
    pub held: usize,
    /// Bytes looked at in search of a message before a stream is given up as not HTTP.
    pub seek: u64,
    /// How long, in the caller's unit of time, an HTTP/2 exchange whose end can have been missed is waited for.
    pub patience: u64,
}

impl Limits {
    pub(crate) fn is_large(&self, announced: Option<u64>) -> bool {
        self.bodies && announced.is_some_and(|len| len >= self.large as u64)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body: 2 << 20,
            connection: 16 << 20,
            bodies: true,
            large: 64 << 10,
            head: 256 << 10,
            pipeline: 1024,
            held: 1 << 20,
            seek: 1 << 20,
            patience: 30_000_000_000,
        }
    }
}

/// Where in time and in the streams the bytes at hand lie.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Moment {
    /// In the caller's unit.
    pub(crate) time: u64,
    /// Stream offsets behind what was seen of requests and responses.
    pub(crate) offsets: [u64; 2],
    /// Whoever sums up all connections has said that they keep too much.
    pub(crate) over_budget: bool,
}
