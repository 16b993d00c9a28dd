//! Servers, clients and tools, each bound to loopback.

use std::{
    fs,
    io::Read as _,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

pub use crate::tools::{program, tool};

/// A process that ends with the value.
pub struct Process(Child);

impl Process {
    pub fn of(child: Child) -> Self {
        Self(child)
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Waits until it ends by itself; what it told by the pipes that it was given.
    pub fn finish(mut self) -> anyhow::Result<Output> {
        let mut output = Output { status: self.0.wait()?, stdout: Vec::new(), stderr: Vec::new() };
        if let Some(mut pipe) = self.0.stdout.take() {
            pipe.read_to_end(&mut output.stdout)?;
        }
        if let Some(mut pipe) = self.0.stderr.take() {
            pipe.read_to_end(&mut output.stderr)?;
        }
        Ok(output)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Asked first, so that it ends what it has started; it may have ended by itself.
        let asked = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw);
        let _ = asked.map(|pid| kill_process(pid, Signal::TERM));
        let begun = Instant::now();
        while matches!(self.0.try_wait(), Ok(None)) && begun.elapsed() < Duration::from_secs(2) {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server, as long as the value lives.
pub struct Server {
    pub process: Process,
    pub port: u16,
    _folder: Option<TempDir>,
}

impl Server {
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Starts a server and waits until its port answers.
pub fn serve(command: Command, port: u16, folder: Option<TempDir>) -> anyhow::Result<Server> {
    start(command, ("127.0.0.1", port), folder)
}

/// The same at another address of loopback.
pub fn serve_at(command: Command, address: &str, port: u16) -> anyhow::Result<Server> {
    start(command, (address, port), None)
}

fn start(mut command: Command, (address, port): (&str, u16), folder: Option<TempDir>) -> anyhow::Result<Server> {
    let quiet = std::env::var_os("RINGTAP_TEST_VERBOSE").is_none();
    let output = || if quiet { Stdio::null() } else { Stdio::inherit() };
    let child =
        command.stdin(Stdio::null()).stdout(output()).stderr(output()).spawn().context("cannot start a server")?;
    let mut server = Server { process: Process(child), port, _folder: folder };
    let begun = Instant::now();
    while TcpStream::connect((address, port)).is_err() {
        if begun.elapsed() > Duration::from_secs(30) || server.process.0.try_wait()?.is_some() {
            bail!("{command:?} did not start");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(server)
}

/// Caddy with one site that serves a folder's files: of Go's own HTTP and TLS, in a program without symbols.
pub fn caddy(folder: TempDir, options: &str, site: impl FnOnce(u16) -> String, tls: &str) -> anyhow::Result<Server> {
    let (file, root, port) = (folder.path().join("Caddyfile"), folder.path().display(), free_port()?);
    let text = format!(
        "{{\n admin off\n storage file_system {root}/state\n {options}\n}}\n\
         {} {{\n {tls}\n root * {root}\n file_server\n}}\n",
        site(port)
    );
    fs::write(&file, text)?;
    let mut command = Command::new("caddy");
    command.args(["run", "--adapter", "caddyfile", "--config"]).arg(&file).env("HOME", folder.path());
    serve(command, port, Some(folder))
}

/// The program that speaks HTTPS by rustls.
pub fn rustls_traffic() -> anyhow::Result<PathBuf> {
    let target = Path::new(env!("CARGO_BIN_EXE_ringtap")).ancestors().nth(2).context("a target folder")?;
    let program = target.join("rustls/release/rustls-traffic");
    ensure!(program.exists(), "./dev tools builds {}", program.display());
    Ok(program)
}

/// It as a server of a folder's files, on blocking sockets or on tokio.
pub fn rustls_server(mode: &str, folder: TempDir) -> anyhow::Result<Server> {
    let (port, (cert, key)) = (free_port()?, certificate(folder.path())?);
    let mut command = Command::new(rustls_traffic()?);
    command.args(["server", mode, &port.to_string()]).args([cert, key]).arg(folder.path());
    serve(command, port, Some(folder))
}

/// A self-signed certificate and its key.
pub fn certificate(folder: &Path) -> anyhow::Result<(PathBuf, PathBuf)> {
    let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    let status = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&cert)
        .stderr(Stdio::null())
        .status()
        .context("openssl is not installed")?;
    if !status.success() {
        bail!("openssl made no certificate");
    }
    Ok((cert, key))
}

/// A file system of a few pages, for the time of the value.
pub struct SmallDisk(TempDir);

impl SmallDisk {
    /// `None` where none can be mounted.
    pub fn mount(size: &str) -> anyhow::Result<Option<Self>> {
        let folder = tempfile::tempdir()?;
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(folder.path());
        Ok(command.status().is_ok_and(|status| status.success()).then_some(Self(folder)))
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // What holds it open keeps it until it ends.
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

/// The Python server, over TLS or plain.
pub fn python_server(tls: bool) -> anyhow::Result<Server> {
    let (folder, port) = (tempfile::tempdir()?, free_port()?);
    let mut command = Command::new("python3");
    command.arg(program("server.py")).arg(port.to_string());
    if tls {
        let (cert, key) = certificate(folder.path())?;
        command.arg(cert).arg(key);
    }
    serve(command, port, Some(folder))
}

/// nginx with files `/size/N`; over TLS or plain, with `sendfile` or without.
pub fn nginx(tls: bool, sendfile: bool) -> anyhow::Result<Server> {
    nginx_with(tls, sendfile, "", 2)
}

/// The same in HTTP/2.
pub fn nginx_http2(tls: bool) -> anyhow::Result<Server> {
    nginx_with(tls, false, " http2", 2)
}

/// The same over TLS by one process.
pub fn nginx_alone() -> anyhow::Result<Server> {
    nginx_with(true, false, "", 1)
}

fn nginx_with(tls: bool, sendfile: bool, protocol: &str, workers: usize) -> anyhow::Result<Server> {
    let (folder, port) = (tempfile::tempdir()?, free_port()?);
    let listen = if tls {
        let (cert, key) = certificate(folder.path())?;
        format!(
            "listen 127.0.0.1:{port} ssl{protocol};\nssl_certificate {};\nssl_certificate_key {};",
            cert.display(),
            key.display()
        )
    } else {
        format!("listen 127.0.0.1:{port}{protocol};")
    };
    let command = nginx_at(folder.path(), &listen, sendfile, workers)?;
    serve(command, port, Some(folder))
}

/// nginx in a folder, with these words on where it listens.
pub fn nginx_at(folder: &Path, listen: &str, sendfile: bool, workers: usize) -> anyhow::Result<Command> {
    let root = folder.join("root/size");
    fs::create_dir_all(&root)?;
    for size in [0usize, 1, 255, 1000, 5000, 20_000, 300_000] {
        let body: Vec<u8> = (0..size).map(|i| u8::try_from((i * 7 + i / 251) % 256).expect("below 256")).collect();
        fs::write(root.join(size.to_string()), body)?;
    }
    let here = folder.display();
    let sendfile = if sendfile { "on" } else { "off" };
    let config = folder.join("nginx.conf");
    let text = format!(
        "daemon off; worker_processes {workers}; pid {here}/pid; error_log {here}/error.log; user root;
events {{ worker_connections 512; }}
http {{
  access_log off; sendfile {sendfile}; keepalive_requests 100000;
  client_body_temp_path {here}/a; proxy_temp_path {here}/b; fastcgi_temp_path {here}/c;
  uwsgi_temp_path {here}/d; scgi_temp_path {here}/e;
  server {{ {listen} root {here}/root; }}
}}"
    );
    fs::write(&config, text)?;
    let mut command = Command::new("nginx");
    command.arg("-c").arg(&config).arg("-p").arg(folder);
    Ok(command)
}

/// Runs a client to its end; what it printed.
pub fn client(name: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let interpreter = if name.rsplit('.').next() == Some("js") { "node" } else { "python3" };
    let output = Command::new(interpreter).arg(program(name)).args(arguments).stdin(Stdio::null()).output()?;
    if !output.status.success() {
        bail!("{name}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}
