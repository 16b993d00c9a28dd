//! Pods have names: those of a real containerd, made by the interface through which Kubernetes makes them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::{
    agent::{Agent, config},
    containers, need_root,
    programs::{Process, nginx, program, tool},
};

/// Of the pod itself, and of its container, which gets this host's programs as volumes.
const IMAGE: &str = "docker.io/library/programs:1";

/// containerd in a folder of its own.
struct Engine {
    _engine: Process,
    folder: TempDir,
}

/// A pod with one container, which has not begun yet; both end with the value.
struct Pod<'a> {
    engine: &'a Engine,
    id: String,
    container: String,
}

impl Engine {
    /// `None` where there is none, or it does not run here.
    fn start() -> anyhow::Result<Option<Self>> {
        let folder = tempfile::Builder::new().prefix("c").tempdir()?;
        let at = |name: &str| folder.path().join(name).display().to_string();
        // This host's file system may be one that cannot be laid over another.
        let text = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\n[grpc]\naddress = {:?}\n\
             [plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = {IMAGE:?}\nrestrict_oom_score_adj = true\n\
             [plugins.\"io.containerd.grpc.v1.cri\".containerd]\nsnapshotter = \"native\"\n",
            at("root"),
            at("state"),
            at("socket"),
        );
        fs::write(at("config.toml"), text)?;
        let log = fs::File::create(at("log"))?;
        let mut command = Command::new("containerd");
        command.args(["--config", &at("config.toml")]).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let Ok(child) = command.spawn() else { return Ok(None) };
        let engine = Self { _engine: Process::of(child), folder };
        let begun = Instant::now();
        while !engine.ctr(&["version"])?.status.success() {
            if begun.elapsed() > Duration::from_secs(30) {
                println!("{}", fs::read_to_string(engine.path("log"))?);
                return Ok(None);
            }
            sleep(Duration::from_millis(200));
        }
        let image = engine.image()?.display().to_string();
        let made = engine.ctr(&["images", "import", "--no-unpack", &image])?;
        ensure!(made.status.success(), "{made:?}");
        Ok(Some(engine))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn ctr(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(self.path("socket")).args(["--namespace", "k8s.io"]).args(arguments);
        Ok(command.stdin(Stdio::null()).output()?)
    }

    /// An archive of an image that can do nothing but sleep, which is all that a pod itself does.
    fn image(&self) -> anyhow::Result<PathBuf> {
        let folder = self.path("image");
        fs::create_dir(&folder)?;
        let layer = folder.join("layer.tar");
        tar(&layer, Path::new("/"), &with_libraries("/usr/bin/sleep")?)?;
        let config = json!({
            "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
            "os": "linux",
            "config": {"Entrypoint": ["/usr/bin/sleep", "600"]},
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{:x}", Sha256::digest(fs::read(&layer)?))]},
        });
        let manifest = json!([{"Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]);
        fs::write(folder.join("config.json"), config.to_string())?;
        fs::write(folder.join("manifest.json"), manifest.to_string())?;
        let archive = self.path("image.tar");
        tar(&archive, &folder, &["manifest.json", "config.json", "layer.tar"].map(str::to_owned))?;
        Ok(archive)
    }

    /// Speaks to it as Kubernetes does.
    fn pod(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let python = tool("python3").context("./dev tools installs the programs")?;
        let mut command = Command::new(python);
        let output = command.arg(program("pod.py")).arg(self.path("socket")).args(arguments).output()?;
        ensure!(output.status.success(), "{output:?}");
        Ok(String::from_utf8(output.stdout)?)
    }

    /// A pod whose container will run curl.
    fn with_curl(&self, name: &str, namespace: &str, url: &str) -> anyhow::Result<Pod<'_>> {
        let ids = self.pod(&["create", IMAGE, name, namespace, &containers::program(url)])?;
        let (id, container) = ids.trim().split_once(' ').context("two ids")?;
        Ok(Pod { engine: self, id: id.to_owned(), container: container.to_owned() })
    }
}

impl Drop for Pod<'_> {
    fn drop(&mut self) {
        // What the engine has started would outlive it. The test itself has nothing to lose any more.
        let _ = self.engine.pod(&["remove", &self.id]);
    }
}

fn tar(archive: &Path, folder: &Path, files: &[String]) -> anyhow::Result<()> {
    let output = Command::new("tar").arg("-chf").arg(archive).arg("-C").arg(folder).args(files).output()?;
    ensure!(output.status.success(), "{output:?}");
    Ok(())
}

/// A program and what it is linked with, as seen from `/`.
fn with_libraries(program: &str) -> anyhow::Result<Vec<String>> {
    let output = Command::new("ldd").arg(program).output()?;
    let text = String::from_utf8(output.stdout)?;
    let files = text.split_whitespace().chain([program]).filter_map(|word| word.strip_prefix('/'));
    Ok(files.map(str::to_owned).collect())
}

#[test]
fn pods_of_kubernetes_have_names() -> anyhow::Result<()> {
    need_root!();
    let Some(engine) = Engine::start()? else {
        crate::tools::skip("pods_of_kubernetes_have_names", "no containerd runs here");
        return Ok(());
    };
    let server = nginx(true, false)?;
    let url = |name: &str| format!("https://127.0.0.1:{}/size/1000?{name}", server.port);
    let pods =
        [engine.with_curl("cart-7f9", "shop", &url("cart"))?, engine.with_curl("cart-7f9", "test", &url("test"))?];
    // Whatever objects do not show is what the rule asks for.
    let text = config("egress-internal", "").replace(
        "config: {level: full}",
        &format!(
            "config: {{level: none, rules: [{{name: shop, level: full, expr: 'src.container.id == \"{}\" && \
             src.container.labels.tier == \"front\" && src.pod.labels.app == \"cart\" && src.pod.namespace == \"shop\"'}}]}}",
            &pods[0].container[..12]
        ),
    );
    let socket = engine.path("socket").display().to_string();
    let command = Command::new(env!("CARGO_BIN_EXE_ringtap"));
    let agent = Agent::start_with(&text, &["--containerd-socket-endpoint", &socket], command)?;
    for pod in pods.iter().rev() {
        engine.pod(&["start", &pod.container])?;
    }
    let waited = agent.wait_for_objects(1);
    let finished = agent.stop()?;
    waited.with_context(|| finished.stderr.clone())?;
    finished.check()?;
    let metadata = containers::object_of(&finished, "?cart")?["metadata"].take();
    let expected = json!({
        "container_name": "app", "container_image": IMAGE, "pod_name": "cart-7f9", "pod_namespace": "shop",
    });
    for (name, value) in expected.as_object().context("an object")? {
        ensure!(metadata[name] == *value, "{name}: {metadata:#}");
    }
    ensure!(containers::object_of(&finished, "?test").is_err(), "the pod of another namespace was kept");
    Ok(())
}
