"""Has a Collector judge the recipes' configurations, sends records through each, and has Compose read the rest.

Usage: check.py OTELCOL COMPOSE

A recipe's exporters send to a server of this program instead of their backend; an exporter that the Collector at hand
does not have is replaced, and that is said. Ends with 1 if something is not as it should be.
"""

import copy
import gzip
import http.server
import json
import os
import pathlib
import queue
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import grpc
import yaml
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.logs.v1.logs_service_pb2_grpc import LogsServiceStub

OTELCOL, COMPOSE = sys.argv[1:]
RECIPES = pathlib.Path(__file__).resolve().parents[2] / "images/recipes"
WAIT_SECONDS = 30
# Which header fields carry the secret, and where the backend takes logs.
BACKENDS = {
    "loki": ("/otlp/v1/logs", {}),
    "datadog": ("/v1/logs", {"dd-api-key": "{DD_API_KEY}"}),
    "elastic": ("/v1/logs", {"Authorization": "ApiKey {ELASTIC_API_KEY}"}),
    "clickstack": ("/v1/logs", {"authorization": "{CLICKSTACK_INGESTION_KEY}"}),
    "honeycomb": ("/v1/logs", {"x-honeycomb-team": "{HONEYCOMB_API_KEY}"}),
}
# Of Elastic's distribution and of contrib.
NOT_HERE = {"elasticsearch"}


class Fault(Exception):
    """What is wrong with a recipe."""


def expect(holds, words):
    if not holds:
        raise Fault(words)


class Backend(http.server.ThreadingHTTPServer):
    """Takes logs over HTTP, and keeps what it was sent."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Request)
        self.taken = queue.Queue()
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Request(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.server.taken.put((self.path, self.headers, ExportLogsServiceRequest.FromString(body)))
        answer = ExportLogsServiceResponse().SerializeToString()
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def environment_of(text):
    """Each variable without a default, with a value of its own."""
    names = re.findall(r"\$\{env:(\w+)\}", text)
    return {name: "https://" + name.lower() + ".test" if "ENDPOINT" in name else "value-of-" + name for name in names}


def validate(path, environment):
    command = [OTELCOL, "validate", f"--config={path}"]
    run = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    return run.returncode == 0, run.stdout + run.stderr


def replaced(text):
    """The configuration with what this Collector does not have replaced, and the names of that."""
    config = yaml.safe_load(text)
    names = [name for name in config["exporters"] if name.split("/")[0] in NOT_HERE]
    for name in names:
        config["exporters"][name.replace(name.split("/")[0], "otlp_http")] = {"endpoint": "http://replaced.test"}
        del config["exporters"][name]
    for pipeline in config["service"]["pipelines"].values():
        pipeline["exporters"] = [
            name.replace(name.split("/")[0], "otlp_http") if name in names else name for name in pipeline["exporters"]
        ]
    return config, names


def is_accepted(path, folder):
    text, environment = path.read_text(), environment_of(path.read_text())
    config, names = replaced(text)
    accepted, said = validate(path, environment)
    if names:
        expect(not accepted and names[0].split("/")[0] in said, f"{names} should not be known here: {said}")
        path = folder / "replaced.yaml"
        path.write_text(yaml.safe_dump(config))
        accepted, said = validate(path, environment)
    expect(accepted, said)
    expect("deprecated" not in said, said)
    # Mistakes are not.
    mistaken = folder / "mistaken.yaml"
    for section, name, key in (("exporters", None, "endpont"), ("receivers", "otlp", "protocol"), ("processors", None, "x")):
        for name in [name] if name else list(config.get(section, {})):
            changed = copy.deepcopy(config)
            changed[section][name][key] = "wrong"
            mistaken.write_text(yaml.safe_dump(changed))
            accepted, said = validate(mistaken, environment)
            expect(not accepted and key in said, f"{section}::{name}::{key} is accepted: {said}")
    return config, names, environment


def record(body):
    request = ExportLogsServiceRequest()
    resource = request.resource_logs.add()
    resource.resource.attributes.add(key="service.name").value.string_value = "qtap"
    entry = resource.scope_logs.add().log_records.add(time_unix_nano=time.time_ns(), severity_number=9)
    entry.body.string_value = body
    entry.attributes.add(key="event.type").value.string_value = "request"
    return request


def send(grpc_port, http_port):
    """One record by each protocol, as soon as the Collector listens."""
    with grpc.insecure_channel(f"127.0.0.1:{grpc_port}") as channel:
        LogsServiceStub(channel).Export(record("by gRPC"), timeout=WAIT_SECONDS, wait_for_ready=True)
    request = urllib.request.Request(
        f"http://127.0.0.1:{http_port}/v1/logs",
        record("by HTTP").SerializeToString(),
        {"Content-Type": "application/x-protobuf"},
    )
    with urllib.request.urlopen(request, timeout=WAIT_SECONDS) as answer:
        expect(answer.status == 200, f"HTTP {answer.status}")


def moved(config, environment, backend, ports):
    """The same configuration on ports of this machine, towards the backend here."""
    protocols = config["receivers"]["otlp"]["protocols"]
    for protocol, port in ports.items():
        protocols[protocol]["endpoint"] = f"127.0.0.1:{port}"
    for exporter in config["exporters"].values():
        endpoint = re.sub(r"\$\{env:\w+:-(.*)\}", r"\1", exporter["endpoint"])
        endpoint = re.sub(r"\$\{env:(\w+)\}", lambda name: environment[name[1]], endpoint)
        exporter["endpoint"] = re.sub(r"^https?://[^/]+", f"http://127.0.0.1:{backend.server_port}", endpoint)
    # What it tells of itself would want a port of its own.
    config["service"]["telemetry"] = {"metrics": {"level": "none"}}
    return config


def carries_records(config, environment, folder, path, headers):
    backend = Backend()
    ports = {"grpc": free_port(), "http": free_port()}
    file = folder / "moved.yaml"
    file.write_text(yaml.safe_dump(moved(config, environment, backend, ports)))
    with (folder / "log").open("w+") as log:
        child = subprocess.Popen([OTELCOL, f"--config={file}"], env=os.environ | environment, stdout=log, stderr=log)
        try:
            send(ports["grpc"], ports["http"])
            arrived, until = set(), time.monotonic() + WAIT_SECONDS
            while arrived != {"by gRPC", "by HTTP"}:
                at, fields, request = backend.taken.get(timeout=max(0.1, until - time.monotonic()))
                expect(at == path, f"sent to {at}, not {path}")
                for name, value in headers.items():
                    value = value.format(**environment)
                    expect(fields.get(name) == value, f"{name} is {fields.get(name)}, not {value}")
                for resource in request.resource_logs:
                    for entry in resource.scope_logs[0].log_records:
                        arrived.add(entry.body.string_value)
        except (queue.Empty, grpc.RpcError, OSError) as error:
            log.seek(0)
            raise Fault(f"{error!r}\n{log.read()}") from error
        finally:
            child.terminate()
            child.wait()
            backend.shutdown()


def compose(folder, environment, *arguments):
    command = [COMPOSE, "--project-directory", folder, "-f", folder / "compose.yaml", *arguments]
    clean = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}
    return subprocess.run(command, env=clean | environment, capture_output=True, text=True, check=False)


def is_a_deployment(folder, documented):
    text = (folder / "compose.yaml").read_text()
    required = set(re.findall(r"\$\{(\w+):\?", text))
    for name in set(re.findall(r"\$\{(\w+)", text)):
        expect(name in documented, f"{name} is not in the README")
    everything = {name: "value-of-" + name for name in required}
    for name in required:
        run = compose(folder, {other: value for other, value in everything.items() if other != name}, "config", "-q")
        expect(run.returncode != 0 and name in run.stderr, f"starts without {name}: {run.stderr}")
    run = compose(folder, everything, "--profile", "*", "config", "--format", "json")
    expect(run.returncode == 0, run.stderr)
    services = json.loads(run.stdout)["services"]
    expect({"ringtap", "otel-collector"} <= set(services), f"services are {list(services)}")
    for name, service in services.items():
        expect(re.search(r":(v?\d+\.\d+|RELEASE\.\d)\S*$", service["image"]), f"{name} is not pinned: {service['image']}")
        for port in service.get("ports", []):
            expect(port.get("host_ip") == "127.0.0.1", f"{name} is open to others at {port}")
        for volume in service.get("volumes", []):
            if volume["type"] == "bind" and volume["source"].startswith(str(RECIPES)):
                expect(pathlib.Path(volume["source"]).is_file(), f"{volume['source']} is not there")
    return len(services)


def main():
    documented = (RECIPES / "README.md").read_text()
    folders = sorted(path.parent for path in RECIPES.glob("*/compose.yaml"))
    expect({folder.name for folder in folders} == set(BACKENDS), f"recipes are {folders}")
    print(subprocess.run([OTELCOL, "--version"], capture_output=True, text=True, check=True).stdout.strip(), flush=True)
    faults = 0
    for folder in folders:
        for path in sorted([*folder.glob("collector*.yaml"), *folder.glob("gateway*.yaml")]):
            with tempfile.TemporaryDirectory() as scratch:
                scratch = pathlib.Path(scratch)
                try:
                    config, names, environment = is_accepted(path, scratch)
                    target, headers = ("/v1/logs", {}) if names else BACKENDS[folder.name]
                    carries_records(config, environment, scratch, target, headers)
                    instead = f" (otlp_http in place of {', '.join(names)})" if names else ""
                    print(f"{folder.name}/{path.name}: accepted; records by gRPC and HTTP came to {target}{instead}")
                except Fault as fault:
                    faults += 1
                    print(f"{folder.name}/{path.name}: {fault}")
        try:
            print(f"{folder.name}/compose.yaml: {is_a_deployment(folder, documented)} services")
        except Fault as fault:
            faults += 1
            print(f"{folder.name}/compose.yaml: {fault}")
    return 1 if faults else 0


sys.exit(main())
