//! What is known of the process behind a connection.

use std::sync::Arc;

/// A process, as far as it could be learnt.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Process {
    /// Process id, outside of containers.
    pub tgid: u32,
    /// Path of the executable.
    pub exe: String,
    /// User id.
    pub uid: Option<u32>,
    /// User name on this host.
    pub user: Option<String>,
    /// What else is known, by the names that rules use behind `src.` or `dst.`: `process.env.<NAME>`, `process.args`, `process.cgroup`, `container.id`,
    /// `container.name`, `container.image`, `container.labels.<k>`, `pod.name`, `pod.namespace`, `pod.labels.<k>`.
    pub details: Vec<(String, String)>,
    /// `key:value` tags of the process, from the configuration and from its environment.
    pub tags: Vec<String>,
    /// Bits of [`ringtap_ring::abi::exclude`]: what the configuration leaves alone.
    pub excluded: u32,
}

impl Process {
    /// Last part of the executable's path.
    #[must_use]
    pub fn binary(&self) -> &str {
        self.exe.rsplit('/').next().unwrap_or_default()
    }

    /// A detail by its name.
    #[must_use]
    pub fn detail(&self, name: &str) -> Option<&str> {
        self.details.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// Where shards look processes up.
pub trait Processes: Send + Sync {
    /// The process, `None` if it is not known any more.
    fn get(&self, tgid: u32) -> Option<Arc<Process>>;

    /// Whether its probes cost the process so much that its large bodies are left in the kernel.
    fn spares_bodies(&self, _tgid: u32) -> bool {
        false
    }
}
