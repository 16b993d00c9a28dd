//! `/devtools`, `ringtap top` and `ringtap status` of a running agent.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};

use crate::{
    agent::Agent,
    need_root,
    programs::{Server, free_port, serve},
    tools::{program, skip, tool},
};

const CONFIG: &str = "
version: 2
stacks:
  default:
    plugins:
      - type: http_capture
        config: {level: summary}
tap:
  direction: egress
  http: {stack: default}
";

fn traffic_server() -> anyhow::Result<Server> {
    let port = free_port()?;
    let mut command = Command::new("python3");
    command.arg(program("page_traffic.py")).args(["serve", &port.to_string()]);
    serve(command, port, None)
}

fn ask_server(server: &Server) -> anyhow::Result<()> {
    let mut client = Command::new("python3");
    client.arg(program("page_traffic.py")).args(["ask", &server.port.to_string()]);
    ensure!(client.status()?.success(), "the client failed");
    Ok(())
}

fn agent(listen: &str, arguments: &[&str]) -> anyhow::Result<Agent> {
    let arguments = [&["--httpd-listen", listen, "--enable-dev-tools"], arguments].concat();
    Agent::start_with(CONFIG, &arguments, Command::new(env!("CARGO_BIN_EXE_ringtap")))
}

fn balanced(agent: Agent) -> anyhow::Result<()> {
    let finished = agent.stop()?;
    ensure!(finished.status.success() && finished.stderr.contains("  balanced"), "{}", finished.stderr);
    Ok(())
}

/// What curl says: the status, and the text.
fn curl(url: &str, flags: &[&str]) -> anyhow::Result<(String, String)> {
    let output = Command::new("curl").args(["-s", "-m", "3", "-w", "\n%{http_code}"]).args(flags).arg(url).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (text, status) = text.rsplit_once('\n').context("curl says a status")?;
    Ok((status.to_owned(), text.to_owned()))
}

/// Where pictures go, for whoever wants to look.
fn pictures() -> anyhow::Result<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/pictures");
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// The page in Chromium: listed, filtered, opened, exported, by mouse and by keys, in light and dark; what is hostile is
/// text; nobody else is asked; a hundred thousand rows are smooth.
#[test]
fn the_page_shows_what_passes() -> anyhow::Result<()> {
    need_root!();
    let (Some(modules), true) = (tool("npm/node_modules/playwright-core"), Path::new("/usr/bin/chromium").exists())
    else {
        skip("page::the_page_shows_what_passes", "needs playwright-core and Chromium: ./dev tools");
        return Ok(());
    };
    let modules = modules.parent().context("it lies in a folder")?;
    let server = traffic_server()?;
    let listen = format!("127.0.0.1:{}", free_port()?);
    let agent = agent(&listen, &[])?;
    ask_server(&server)?;
    let mut browser = Command::new("node");
    browser.arg(program("page.mjs")).arg(modules).arg(format!("http://{listen}/devtools")).arg(pictures()?);
    let output = browser.output()?;
    let (said, faults) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{said}{faults}");
    eprintln!("{said}");
    balanced(agent)
}

/// Whoever asks by another name, or from elsewhere without the token, sees nothing of what was captured.
#[test]
fn not_everybody_sees_it() -> anyhow::Result<()> {
    need_root!();
    let server = traffic_server()?;
    let port = free_port()?;
    let local = agent(&format!("127.0.0.1:{port}"), &[])?;
    ask_server(&server)?;
    let events = format!("http://127.0.0.1:{port}/devtools/api/events");
    let (status, text) = curl(&events, &["-N"])?;
    ensure!(status == "200" && text.contains("request.http_transaction"), "{status}: {text}");
    ensure!(!text.contains("secret-value"), "secrets are masked: {text}");
    let (status, _) = curl(&events, &["-H", "Host: rebound.example"])?;
    ensure!(status == "403", "another name: {status}");
    let (status, why) = curl(&format!("{events}?expr=http.res.status+%3D%3D"), &[])?;
    ensure!(status == "400" && !why.is_empty(), "a broken rule: {status} {why}");
    let (status, headers) = curl(&format!("http://127.0.0.1:{port}/devtools"), &["-i"])?;
    ensure!(status == "200" && headers.contains("content-security-policy: default-src 'none'"), "{headers}");
    let (status, _) = curl(&format!("http://127.0.0.1:{port}/"), &[])?;
    ensure!(status == "307", "the root leads to the page: {status}");
    balanced(local)?;

    let port = free_port()?;
    let remote = agent(&format!("0.0.0.0:{port}"), &[])?;
    ask_server(&server)?;
    let events = format!("http://127.0.0.1:{port}/devtools/api/events");
    let (status, text) = curl(&events, &[])?;
    ensure!(status == "401" && !text.contains("transaction"), "without a token: {status} {text}");
    let token = remote.read("data/devtools-token")?;
    let header = format!("Authorization: Bearer {}", token.trim());
    let (status, text) = curl(&events, &["-N", "-H", &header])?;
    ensure!(status == "200" && text.contains("/page/json"), "with the token: {status} {text}");
    ensure!(!remote.read("stderr")?.contains(token.trim()), "the token is not in the log");
    balanced(remote)
}

/// Without the flag there is no page; the rest of the server says how the agent is.
#[test]
fn the_server_says_how_the_agent_is() -> anyhow::Result<()> {
    need_root!();
    let listen = format!("127.0.0.1:{}", free_port()?);
    let agent = Agent::start_with(CONFIG, &["--httpd-listen", &listen], Command::new(env!("CARGO_BIN_EXE_ringtap")))?;
    let url = |path: &str| format!("http://{listen}{path}");
    ensure!(curl(&url("/devtools"), &[])?.0 == "404", "the page is off");
    let (status, ready) = curl(&url("/readyz"), &[])?;
    ensure!(status == "200" && ready == "ready\n", "{status}: {ready}");
    let text = Command::new(env!("CARGO_BIN_EXE_ringtap")).args(["status", "--agent", &listen]).output()?;
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    ensure!(text.contains("state      capturing") && text.contains("exchanges"), "{text}");
    let paused = agent.pause()?;
    std::thread::sleep(Duration::from_secs(6));
    drop(paused);
    // The server's thread may be first to go on.
    let begun = Instant::now();
    while curl(&url("/readyz"), &[])?.0 != "200" {
        ensure!(begun.elapsed() < Duration::from_secs(5), "it captures again");
    }
    balanced(agent)?;
    let none = Command::new(env!("CARGO_BIN_EXE_ringtap")).args(["status", "--agent", &listen]).output()?;
    ensure!(!none.status.success() && String::from_utf8_lossy(&none.stderr).contains("no agent answers"), "it is gone");
    Ok(())
}

/// Names of metrics in a text.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("qtap_") || word.starts_with("ringtap_")).map(str::to_owned).collect()
}

/// Every name in a dashboard or an alert is one that the agent serves, and its labels are not free.
#[test]
fn dashboards_ask_for_what_there_is() -> anyhow::Result<()> {
    need_root!();
    let server = traffic_server()?;
    let listen = format!("127.0.0.1:{}", free_port()?);
    let config = CONFIG.replace("      - type: http_capture", "      - type: http_metrics\n      - type: http_capture");
    let config = config.replace(
        "        config: {level: summary}\n",
        "        config: {level: none, rules: [{name: r, expr: 'http.res.status == 503', level: summary}]}\n",
    );
    // So that there is a spool, and something to wait in it.
    let store = "services:\n  event_stores: [{type: otel, endpoint: '127.0.0.1:9', tls: {enabled: false}}]\nstacks:";
    let config = config.replace("stacks:", store);
    let agent = Agent::start_with(&config, &["--httpd-listen", &listen], Command::new(env!("CARGO_BIN_EXE_ringtap")))?;
    ask_server(&server)?;
    let begun = Instant::now();
    let traffic = loop {
        let (_, traffic) = curl(&format!("http://{listen}/metrics"), &[])?;
        if traffic.contains("qtap_http_requests_total{") && traffic.contains("qtap_connection_close_total{") {
            break traffic;
        }
        ensure!(begun.elapsed() < Duration::from_secs(20), "no metrics: {traffic}");
        std::thread::sleep(Duration::from_millis(200));
    };
    let (_, own) = curl(&format!("http://{listen}/system/metrics"), &[])?;
    let there = names(&(traffic.clone() + &own));
    let recipes = Path::new(env!("CARGO_MANIFEST_DIR")).join("images/recipes");
    let mut asked = 0;
    for file in ["grafana/traffic.json", "grafana/agent.json", "prometheus/alerts.yaml"] {
        for name in names(&fs::read_to_string(recipes.join(file))?) {
            // No gRPC passes here; its series are those of HTTP under another name.
            let name = name.replace("qtap_grpc_", "qtap_http_");
            // What no process gave cause for has no series yet, only a type.
            ensure!(there.contains(&name), "{file} asks for {name}, which is not served: {there:?}");
            asked += 1;
        }
    }
    ensure!(asked > 40, "{asked} names");
    ensure!(traffic.lines().filter(|line| line.starts_with("qtap_http_requests_total{")).count() < 20, "{traffic}");
    agent.stop()?;
    Ok(())
}

/// In a terminal that tmux plays.
#[test]
fn top_shows_what_passes() -> anyhow::Result<()> {
    need_root!();
    if Command::new("tmux").arg("-V").output().is_err() {
        skip("page::top_shows_what_passes", "needs tmux");
        return Ok(());
    }
    let server = traffic_server()?;
    let listen = format!("127.0.0.1:{}", free_port()?);
    let agent = agent(&listen, &[])?;
    let socket = format!("ringtap-test-{}", std::process::id());
    let tmux = |arguments: &[&str]| -> anyhow::Result<String> {
        let output = Command::new("tmux").args(["-L", &socket]).args(arguments).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let wait = |word: &str| -> anyhow::Result<String> {
        let begun = Instant::now();
        loop {
            let screen = tmux(&["capture-pane", "-p", "-t", "top"])?;
            if screen.contains(word) {
                return Ok(screen);
            }
            ensure!(begun.elapsed() < Duration::from_secs(10), "`{word}` is not on the screen:\n{screen}");
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    let command = format!("{} top --agent {listen}", env!("CARGO_BIN_EXE_ringtap"));
    tmux(&["new-session", "-d", "-x", "140", "-y", "30", "-s", "top", &command])?;
    let shown = (|| {
        wait("live")?;
        ask_server(&server)?;
        let screen = wait("<img/src=x")?;
        ensure!(screen.contains("/page/503") && screen.contains("python3"), "{screen}");
        fs::write(pictures()?.join("top.txt"), &screen)?;
        tmux(&["send-keys", "-t", "top", "e"])?;
        let screen = wait("only errors")?;
        ensure!(screen.contains("/page/503") && !screen.contains("/page/json"), "{screen}");
        tmux(&["send-keys", "-t", "top", "Enter"])?;
        wait("http://127.0.0.1")?;
        tmux(&["send-keys", "-t", "top", "q"])?;
        Ok(())
    })();
    tmux(&["kill-server"])?;
    shown?;
    balanced(agent)
}
