//! Who runs in which container: names, images, labels and pods, asked of the runtimes of this host and remembered.
//!
//! A process tells its container by its control group. What the container is called only its runtime knows: it is asked
//! once, off the way of the records, and all processes of the container get the answer.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use tokio::sync::mpsc;

use crate::process::ProcessTable;

pub mod cgroup;
mod containerd;
mod cri;
mod docker;
mod socket;

/// Details of processes, by the names that rules use: `container.name`, `pod.labels.app`.
pub type Details = Vec<(String, String)>;

/// Containers that are remembered; beyond, all are asked for anew.
const KNOWN_MAX: usize = 8192;
/// Questions that wait.
const QUEUE: usize = 1024;
/// Labels and annotations of one container, and bytes of each.
const LABELS_MAX: usize = 64;
const LABEL_BYTES: usize = 1024;
/// A container is in its runtime's books a moment after its first process has begun.
const TRIES: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(5)];
/// For one answer of one runtime.
const PATIENCE: Duration = Duration::from_secs(3);

/// Where the runtimes of this host listen.
#[derive(Debug, Clone)]
pub struct Runtimes {
    /// Docker's interface, which Podman has too.
    pub docker: PathBuf,
    /// containerd's own.
    pub containerd: PathBuf,
    /// That of Kubernetes; left out: containerd's, or that of CRI-O.
    pub cri: Option<PathBuf>,
}

/// What is known of containers.
#[derive(Default)]
pub struct Containers {
    known: Mutex<HashMap<String, Answer>>,
    questions: OnceLock<mpsc::Sender<String>>,
}

#[derive(Clone)]
enum Answer {
    Asked,
    Known(Arc<Details>),
}

impl Containers {
    /// What is known of the container that a process runs in; what is not known yet is asked for.
    #[must_use]
    pub fn of(&self, tgid: u32) -> Details {
        let Some(id) = cgroup::container_of(tgid) else { return Vec::new() };
        let mut details = vec![("container.id".to_owned(), cgroup::short(&id).to_owned())];
        if let Some(more) = self.find(id) {
            details.extend(more.iter().cloned());
        }
        details
    }

    fn find(&self, id: String) -> Option<Arc<Details>> {
        // Nobody would answer.
        let questions = self.questions.get()?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match known.get(&id) {
            Some(Answer::Known(details)) => return Some(details.clone()),
            Some(Answer::Asked) => return None,
            None => {}
        }
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        // A full queue: asked again with the next process.
        if questions.try_send(id.clone()).is_ok() {
            known.insert(id, Answer::Asked);
        }
        None
    }

    fn learn(&self, id: &str, answer: Option<Arc<Details>>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match answer {
            Some(details) => known.insert(id.to_owned(), Answer::Known(details)),
            // It may be a sandbox of something else; the next process asks again.
            None => known.remove(id),
        };
    }
}

/// Answers questions until the process ends. Inside of a runtime.
pub fn start(processes: &Arc<ProcessTable>, runtimes: Runtimes) {
    let (sender, mut receiver) = mpsc::channel::<String>(QUEUE);
    let containers = processes.containers();
    if containers.questions.set(sender).is_err() {
        return;
    }
    let (processes, runtimes) = (processes.clone(), Arc::new(runtimes));
    tokio::spawn(async move {
        while let Some(id) = receiver.recv().await {
            let (processes, runtimes) = (processes.clone(), runtimes.clone());
            // The bound on questions is one on tasks: a container is asked for by one at a time.
            tokio::spawn(async move {
                let answer = ask(&id, &runtimes).await.map(Arc::new);
                match &answer {
                    Some(details) => tracing::debug!(id, ?details, "a container is known"),
                    None => tracing::debug!(id, "no runtime knows this container"),
                }
                processes.containers().learn(&id, answer.clone());
                if let Some(details) = answer {
                    processes.name_container(cgroup::short(&id), &details);
                }
            });
        }
    });
    processes_of_before(containers);
}

/// Those that are known already came before there was anybody to ask.
fn processes_of_before(containers: &Containers) {
    for tgid in crate::coverage::process_ids() {
        let _ = containers.of(tgid);
    }
}

async fn ask(id: &str, runtimes: &Runtimes) -> Option<Details> {
    for pause in TRIES {
        tokio::time::sleep(pause).await;
        // The first that knows most: pods are known to the interface of Kubernetes alone.
        for socket in runtimes.cri() {
            if let Some(details) = patiently(cri::ask(&socket, id)).await {
                return Some(details);
            }
        }
        for socket in runtimes.docker() {
            if let Some(details) = patiently(docker::ask(&socket, id)).await {
                return Some(details);
            }
        }
        if let Some(details) = patiently(containerd::ask(&runtimes.containerd, id)).await {
            return Some(details);
        }
    }
    None
}

/// The answer of one runtime. One that is not there, or does not know the container, is no mistake.
async fn patiently(asked: impl Future<Output = anyhow::Result<Details>>) -> Option<Details> {
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(Ok(details)) => Some(details),
        Ok(Err(error)) => {
            tracing::trace!("{error:#}");
            None
        }
        Err(_) => {
            tracing::warn!("a container runtime does not answer");
            None
        }
    }
}

impl Runtimes {
    fn cri(&self) -> Vec<PathBuf> {
        match &self.cri {
            Some(socket) => vec![socket.clone()],
            None => vec![self.containerd.clone(), PathBuf::from("/run/crio/crio.sock")],
        }
    }

    fn docker(&self) -> Vec<PathBuf> {
        vec![self.docker.clone(), PathBuf::from("/run/podman/podman.sock")]
    }
}

/// Labels as details, without those that are too long.
fn labelled(
    prefix: &str,
    labels: impl IntoIterator<Item = (String, String)>,
) -> impl Iterator<Item = (String, String)> {
    let short = labels.into_iter().filter(|(key, value)| key.len() + value.len() <= LABEL_BYTES);
    short.take(LABELS_MAX).map(move |(key, value)| (format!("{prefix}.{key}"), value))
}

/// The pod that labels of a container tell of, as the kubelet sets them.
fn pod_of_labels(labels: &HashMap<String, String>) -> Details {
    const LABELS: [(&str, &str); 2] =
        [("pod.name", "io.kubernetes.pod.name"), ("pod.namespace", "io.kubernetes.pod.namespace")];
    let found = LABELS.iter().filter_map(|(name, label)| Some(((*name).to_owned(), labels.get(*label)?.clone())));
    found.filter(|(_, value)| !value.is_empty()).collect()
}
