//! Containers have names: of a real Docker engine and of the containerd under it, with labels and pods.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    agent::{Agent, Finished, config},
    need_root,
    programs::{Process, nginx},
    truth::files,
};

/// Docker's engine in a folder of its own, with a containerd that it starts by itself, and one image with nothing in it:
/// containers get this host's programs as volumes.
struct Engine {
    _engine: Process,
    folder: TempDir,
}

impl Engine {
    /// `None` where there is none, or it does not run here.
    fn start() -> anyhow::Result<Option<Self>> {
        let folder = tempfile::Builder::new().prefix("d").tempdir()?;
        let at = |name: &str| folder.path().join(name).display().to_string();
        let mut command = Command::new("dockerd");
        command.args(["--bridge=none", "--iptables=false", "--ip6tables=false", "--storage-driver=vfs"]);
        command.args(["--data-root", &at("data"), "--exec-root", &at("exec"), "--pidfile", &at("pid")]);
        command.args(["-H", &format!("unix://{}", at("docker.sock"))]);
        let log = fs::File::create(at("log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let Ok(child) = command.spawn() else { return Ok(None) };
        let engine = Self { _engine: Process::of(child), folder };
        let begun = Instant::now();
        while !engine.docker(&["info"])?.status.success() {
            if begun.elapsed() > Duration::from_secs(30) {
                println!("{}", fs::read_to_string(engine.path("log"))?);
                return Ok(None);
            }
            sleep(Duration::from_millis(200));
        }
        let empty = engine.path("empty.tar");
        fs::write(&empty, [0; 1024])?;
        let made = engine.docker(&["import", &empty.display().to_string(), "programs:1"])?;
        ensure!(made.status.success(), "{made:?}");
        Ok(Some(engine))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn docker(&self, arguments: &[&str]) -> anyhow::Result<std::process::Output> {
        let socket = format!("unix://{}", self.path("docker.sock").display());
        Ok(Command::new("docker").args(["-H", &socket]).args(arguments).stdin(Stdio::null()).output()?)
    }

    /// curl in a container of Docker.
    fn curl(&self, name: &str, labels: &[&str], url: &str) -> anyhow::Result<()> {
        let mut arguments = vec!["run", "--rm", "--network", "host", "--ulimit", "nofile=1024:1024", "--name", name];
        for folder in ["/usr:/usr:ro", "/lib:/lib:ro", "/lib64:/lib64:ro", "/etc:/etc:ro"] {
            arguments.extend(["-v", folder]);
        }
        for label in labels {
            arguments.extend(["--label", label]);
        }
        let command = program(url);
        arguments.extend(["programs:1", "/usr/bin/sh", "-c", &command]);
        let output = self.docker(&arguments)?;
        ensure!(output.status.success(), "{output:?}");
        Ok(())
    }

    /// curl in a container of containerd, which Docker knows nothing of.
    fn curl_by_containerd(&self, id: &str, labels: &[&str], url: &str) -> anyhow::Result<()> {
        let root = self.path("root");
        for folder in ["usr", "lib", "lib64", "etc"] {
            fs::create_dir_all(root.join(folder))?;
        }
        let mut command = Command::new("ctr");
        command.arg("--address").arg(self.path("exec/containerd/containerd.sock"));
        command.args(["--namespace", "k8s.io", "run", "--rm", "--net-host", "--rootfs"]);
        for folder in ["/usr", "/lib", "/lib64", "/etc"] {
            let source = fs::canonicalize(folder)?;
            command.args(["--mount", &format!("type=bind,src={},dst={folder},options=rbind:ro", source.display())]);
        }
        for label in labels {
            command.args(["--label", label]);
        }
        command.arg(&root).args([id, "/usr/bin/sh", "-c", &program(url)]).stdin(Stdio::null());
        let output = command.output()?;
        ensure!(output.status.success(), "{output:?}");
        Ok(())
    }
}

/// What a container runs. Its runtime is asked when its first process begins, and answers within a fraction of a second:
/// rules know the container's names from then on.
pub fn program(url: &str) -> String {
    format!("/usr/bin/sleep 1; /usr/bin/curl -sko /dev/null '{url}'")
}

/// The record of the request with this query, on the client's side.
pub fn object_of(finished: &Finished, query: &str) -> anyhow::Result<Value> {
    for (_, bytes) in files(&finished.objects()?)? {
        let object: Value = serde_json::from_slice(&bytes)?;
        if object["request"]["url"].as_str().is_some_and(|url| url.ends_with(query)) {
            return Ok(object);
        }
    }
    anyhow::bail!("no record of {query}: {}", finished.stderr)
}

#[test]
fn containers_and_pods_have_names() -> anyhow::Result<()> {
    need_root!();
    let Some(engine) = Engine::start()? else {
        crate::tools::skip("containers_and_pods_have_names", "no Docker engine runs here");
        return Ok(());
    };
    let server = nginx(true, false)?;
    // What is kept is chosen by a container's label and by a pod's namespace.
    let text = config("egress-internal", "").replace(
        "config: {level: full}",
        "config: {level: none, rules: [{name: web, expr: 'src.container.labels.team == \"web\"', level: full}, \
         {name: shop, expr: 'src.pod.namespace == \"shop\"', level: full}]}",
    );
    let sockets = [
        ("--docker-socket-endpoint", engine.path("docker.sock")),
        ("--containerd-socket-endpoint", engine.path("exec/containerd/containerd.sock")),
    ];
    let mut flags: Vec<String> = Vec::new();
    for (flag, path) in &sockets {
        flags.extend([(*flag).to_owned(), path.display().to_string()]);
    }
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let agent = Agent::start_with(&text, &flags, Command::new(env!("CARGO_BIN_EXE_ringtap")))?;
    let url = |name: &str| format!("https://127.0.0.1:{}/size/1000?{name}", server.port);
    engine.curl("relaxed", &["team=web"], &url("docker"))?;
    engine.curl("other", &["team=none"], &url("unlabelled"))?;
    let pod =
        ["io.kubernetes.pod.name=cart-7f9", "io.kubernetes.pod.namespace=shop", "io.kubernetes.container.name=app"];
    engine.curl_by_containerd(&"c0ffee0123456789".repeat(4), &pod, &url("pod"))?;
    Command::new("curl").args(["-sko", "/dev/null", &url("host")]).status()?;
    let waited = agent.wait_for_objects(2);
    let finished = agent.stop()?;
    waited.with_context(|| finished.stderr.clone())?;
    finished.check()?;
    let docker = object_of(&finished, "?docker")?["metadata"].take();
    ensure!(docker["container_name"] == "relaxed" && docker["container_image"] == "programs:1", "{docker:#}");
    let pod = object_of(&finished, "?pod")?["metadata"].take();
    ensure!(pod["pod_name"] == "cart-7f9" && pod["pod_namespace"] == "shop", "{pod:#}");
    for absent in ["?unlabelled", "?host"] {
        ensure!(object_of(&finished, absent).is_err(), "{absent} was kept");
    }
    Ok(())
}
