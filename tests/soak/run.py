"""Hours of what a host lives through: traffic at half of what this machine carries, programs that come and go, connections that
are opened anew, configurations that change, stores that are gone for a while.

Usage: run.py BINARY SECONDS FOLDER [RATE]

Samples the agent every few seconds into FOLDER/samples.csv; at the end draws FOLDER/soak.svg, writes FOLDER/soak.json, and
fails if memory or descriptors grew, or if the ledger does not add up. Without RATE the half of what was measured first."""

import csv
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

BINARY, SECONDS, FOLDER = sys.argv[1], int(sys.argv[2]), pathlib.Path(sys.argv[3]).resolve()
ROOT = pathlib.Path(__file__).parents[2]
TOOLS = ROOT / ".cache/tools/bin"
SAMPLE = 5
RELOAD = 45
# The stores are gone for the last part of each round.
ROUND, GONE = int(os.environ.get("SOAK_ROUND", "150")), int(os.environ.get("SOAK_GONE", "25"))
started = []


def free():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def wait(port):
    for _ in range(300):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"nothing listens on {port}")


def start(*command, **options):
    child = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, **options)
    started.append(child)
    return child


def end(child):
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    started.remove(child)


class Stores:
    """A collector that discards, and a bucket."""

    def __init__(self):
        self.otlp, self.s3 = free(), free()
        self.children = []
        (FOLDER / "bucket").mkdir(exist_ok=True)

    def up(self):
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        rotel = start(TOOLS / "rotel-agent", "start", "--exporter", "blackhole", "--otlp-grpc-endpoint", f"127.0.0.1:{free()}",
                      "--otlp-http-endpoint", f"127.0.0.1:{self.otlp}", **quiet)
        rclone = start(TOOLS / "rclone", "serve", "s3", "--addr", f"127.0.0.1:{self.s3}", "--auth-key", "access,secret12345",
                       FOLDER / "buckets", **quiet)
        self.children = [rotel, rclone]
        wait(self.otlp)
        wait(self.s3)

    def down(self):
        for child in self.children:
            end(child)


def config(stores, text=""):
    return f"""# {text}
version: 2
services:
  spool: {{path: {FOLDER}/spool, max_bytes: 1gb}}
  event_stores:
    - type: otel
      endpoint: 127.0.0.1:{stores.otlp}
      protocol: http
      tls: {{enabled: false}}
  object_stores:
    - type: s3
      endpoint: 127.0.0.1:{stores.s3}
      bucket: soak
      region: us-east-1
      insecure: true
      access_url: http://127.0.0.1:{stores.s3}/soak/{{{{DIGEST}}}}
      access_key: {{type: text, value: access}}
      secret_key: {{type: text, value: secret12345}}
stacks:
  s:
    plugins:
      - type: report_usage
      - type: http_metrics
      - type: http_capture
        config:
          level: none
          rules:
            - {{name: kept, expr: 'http.req.path == "/kept"', level: full}}
tap:
  direction: ingress
  ignore_loopback: false
  # All of it, whatever it costs.
  budgets: {{probes: 'off'}}
  http: {{stack: s}}
"""


def nginx(plain, tls):
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "2", "-keyout",
                    FOLDER / "key.pem", "-out", FOLDER / "cert.pem"], check=True, capture_output=True)
    (FOLDER / "nginx.conf").write_text(f"""daemon off; worker_processes 1; pid {FOLDER}/nginx.pid; error_log {FOLDER}/nginx.log;
events {{ worker_connections 512; }}
http {{ access_log off; keepalive_requests 10000000;
  server {{ listen 127.0.0.1:{plain}; listen 127.0.0.1:{tls} ssl; ssl_certificate {FOLDER}/cert.pem;
    ssl_certificate_key {FOLDER}/key.pem; location / {{ return 200 '{"x" * 1000}'; }} }} }}
""")
    child = start("nginx", "-c", FOLDER / "nginx.conf", "-p", FOLDER)
    wait(plain)
    wait(tls)
    return child


def load(url, seconds, rate=None, clients=8):
    """Requests by h2load: at a rate, or as many as it gets; how many succeeded a second."""
    command = ["h2load", "--h1", "-t1", f"-c{clients}", "-D", str(seconds), url]
    if rate:
        command[1:1] = ["--rps", str(max(1, rate // clients))]
    out = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    found = re.search(r"(\d+) succeeded", out)
    return int(found.group(1)) / seconds if found else 0


class Sampler:
    """What the agent takes, and what it says."""

    def __init__(self, pid, admin):
        self.pid, self.admin = pid, admin
        self.begun = time.time()
        self.rows = []

    def take(self, gone):
        proc = pathlib.Path(f"/proc/{self.pid}")
        status = dict(line.split(":\t", 1) for line in (proc / "status").read_text().splitlines() if ":\t" in line)
        ticks = (proc / "stat").read_text().rsplit(") ", 1)[1].split()
        said = json.load(urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/system/status", timeout=10))
        counts = said["counts"]
        # Anonymous memory is the agent's own; pages of rings and files are not.
        self.rows.append({
            "s": round(time.time() - self.begun), "rss_kb": int(status["VmRSS"].split()[0]), "anon_kb": int(status["RssAnon"].split()[0]),
            "fds": len(os.listdir(proc / "fd")), "threads": int(status["Threads"]),
            "cpu_s": (int(ticks[11]) + int(ticks[12])) / 100, "exchanges": counts["exchanges_seen"],
            "damaged": counts["exchanges_damaged"], "events": counts["events_delivered"],
            "lost": sum(counts[f"{kind}_{cause}"] for kind in ("events", "objects")
                        for cause in ("failed", "queue_full", "dropped", "expired", "corrupt")),
            "ring_full": counts["kernel_ring_full_records"], "spool_mb": round(said["spool"]["bytes"] / 1e6, 1),
            "probes": said["probes"], "gone": int(gone),
        })


def grows(rows, column):
    """A day's growth by the last three quarters, as a share of the mean: least squares."""
    rows = rows[len(rows) // 4:]
    xs, ys = [row["s"] for row in rows], [row[column] for row in rows]
    mx, my = sum(xs) / len(xs), sum(ys) / len(ys)
    slope = sum((x - mx) * (y - my) for x, y in zip(xs, ys)) / sum((x - mx) ** 2 for x in xs)
    return slope * (rows[-1]["s"] - rows[0]["s"]) / my


def draw(rows):
    figure, plots = plt.subplots(5, 1, figsize=(10, 12), sharex=True, layout="constrained")
    minutes = [row["s"] / 60 for row in rows]
    rate = [0] + [(b["exchanges"] - a["exchanges"]) / max(1, b["s"] - a["s"]) for a, b in zip(rows, rows[1:])]
    cpu = [0] + [(b["cpu_s"] - a["cpu_s"]) / max(1, b["s"] - a["s"]) * 100 for a, b in zip(rows, rows[1:])]
    for plot, title, lines in zip(plots, ["MiB of memory", "descriptors, threads", "exchanges a second", "percent of a processor", "MB in the spool"], [
        [("resident", [row["rss_kb"] / 1024 for row in rows]), ("anonymous", [row["anon_kb"] / 1024 for row in rows])],
        [("descriptors", [row["fds"] for row in rows]), ("threads", [row["threads"] for row in rows])],
        [("exchanges", rate)], [("agent", cpu)], [("spool", [row["spool_mb"] for row in rows])],
    ]):
        for name, values in lines:
            plot.plot(minutes, values, label=name, linewidth=1)
        plot.set_ylabel(title)
        plot.set_ylim(bottom=0)
        plot.legend(loc="upper right")
        for a, b in zip(rows, rows[1:]):
            if a["gone"]:
                plot.axvspan(a["s"] / 60, b["s"] / 60, color="tab:red", alpha=0.08, linewidth=0)
    plots[-1].set_xlabel("minutes; red: the stores are gone")
    figure.savefig(FOLDER / "soak.svg", metadata={"Date": None})


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "buckets/soak").mkdir(parents=True, exist_ok=True)
    stores, plain, tls, admin = Stores(), free(), free(), free()
    stores.up()
    nginx(plain, tls)
    file = FOLDER / "config.yaml"
    file.write_text(config(stores))
    file.chmod(0o600)
    log = open(FOLDER / "agent.log", "w")
    environment = os.environ | {"RINGTAP_BESIDE": "true", "DATA_DIR": str(FOLDER / "data"), "HTTPD_LISTEN": f"127.0.0.1:{admin}"}
    agent = start(BINARY, "run", "--config", file, "--log-encoding", "console", stdout=subprocess.DEVNULL, stderr=log, env=environment)
    while "capturing" not in (FOLDER / "agent.log").read_text():
        time.sleep(0.1)
        if agent.poll() is not None:
            raise SystemExit((FOLDER / "agent.log").read_text())
    if len(sys.argv) > 4:
        rate = int(sys.argv[4])
    else:
        rate = int(load(f"https://127.0.0.1:{tls}/", 10) / 2)
    print(f"{rate} requests a second for {SECONDS} s", flush=True)
    sampler, finish, counts = Sampler(agent.pid, admin), time.time() + SECONDS, {"requests": 0, "processes": 0, "reloads": 0, "outages": 0, "gone_s": 0}

    def loads(url, share):
        while time.time() < finish:
            # New connections now and then; a load ends early if the server closes them.
            seconds = max(1, min(10, int(finish - time.time())))
            counts["requests"] += load(url, seconds, int(rate * share)) * seconds

    def processes():
        while time.time() < finish:
            done = subprocess.run(["curl", "-sk", "-o", os.devnull, f"https://localhost:{tls}/kept"], check=False)
            counts["processes"] += done.returncode == 0
            time.sleep(0.2)

    threads = [threading.Thread(target=loads, args=(f"https://127.0.0.1:{tls}/tls", 0.5)),
               threading.Thread(target=loads, args=(f"http://127.0.0.1:{plain}/plain", 0.5)), threading.Thread(target=processes)]
    for thread in threads:
        thread.start()
    begun, gone, reloaded = time.time(), False, time.time()
    while time.time() < finish:
        now = time.time()
        away = (now - begun) % ROUND > ROUND - GONE
        if away != gone:
            counts["outages"] += away
            stores.down() if away else stores.up()
            gone = away
        if now - reloaded > RELOAD:
            reloaded = now
            counts["reloads"] += 1
            file.write_text(config(stores, f"number {counts['reloads']}"))
        sampler.take(gone)
        time.sleep(SAMPLE)
        counts["gone_s"] += SAMPLE * gone
    for thread in threads:
        thread.join()
    if gone:
        stores.up()
    # What waits is delivered.
    for _ in range(300):
        sampler.take(False)
        if sampler.rows[-1]["spool_mb"] == 0:
            break
        time.sleep(1)
    agent.send_signal(signal.SIGTERM)
    agent.wait(30)
    said = (FOLDER / "agent.log").read_text()
    ledger = said[said.rindex("ledger\n"):]
    rows = sampler.rows
    with open(FOLDER / "samples.csv", "w", newline="") as out:
        writer = csv.DictWriter(out, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    draw(rows)
    report = {
        "seconds": rows[-1]["s"], "rate": rate, **{name: int(n) for name, n in counts.items()},
        "exchanges": rows[-1]["exchanges"], "damaged": rows[-1]["damaged"], "ring_full_records": rows[-1]["ring_full"],
        "lost": rows[-1]["lost"], "memory_growth": round(grows(rows, "anon_kb"), 4), "descriptor_growth": round(grows(rows, "fds"), 4),
        "anon_mib": [round(min(row["anon_kb"] for row in rows) / 1024, 1), round(max(row["anon_kb"] for row in rows) / 1024, 1)],
        "descriptors": [min(row["fds"] for row in rows), max(row["fds"] for row in rows)],
        "cpu_percent": round(rows[-1]["cpu_s"] / rows[-1]["s"] * 100, 1), "ledger": ledger,
    }
    (FOLDER / "soak.json").write_text(json.dumps(report, indent=1))
    print(json.dumps({name: value for name, value in report.items() if name != "ledger"}, indent=1))
    print(ledger)
    faults = []
    if "balanced" not in ledger or "NOT BALANCED" in ledger:
        faults.append("the ledger does not add up")
    if report["lost"]:
        faults.append(f"{report['lost']} events or objects were lost")
    # Short runs have not settled yet.
    if SECONDS >= 1800 and report["memory_growth"] > 0.1:
        faults.append(f"memory grew by {report['memory_growth']:.0%}")
    if SECONDS >= 1800 and report["descriptor_growth"] > 0.05:
        faults.append(f"descriptors grew by {report['descriptor_growth']:.0%}")
    if faults:
        raise SystemExit("; ".join(faults))


try:
    main()
finally:
    for one in list(started):
        end(one)
