"""Manifests and chart against the schemas of Kubernetes: check.py RENDERER

The chart is rendered with its own values, with those of a file written for the chart that it takes the place of, and with
everything switched on. What must follow from the values is looked at as well."""

import copy
import json
import pathlib
import subprocess
import sys
import tempfile

import kubernetes_validate
import yaml

ROOT = pathlib.Path(__file__).parents[2]
CHART = ROOT / "images/helm/ringtap"
# The oldest and the newest whose schemas are at hand and that the chart allows.
VERSIONS = ["1.25.0", "1.31.0", "1.37.0"]


def validate(text, where):
    """The documents of a text, each valid."""
    documents = [document for document in yaml.safe_load_all(text) if document]
    for document in documents:
        if "monitoring.coreos.com" in document["apiVersion"]:
            continue
        for version in VERSIONS:
            # appArmorProfile is a field since 1.30; before it was an annotation.
            shown = copy.deepcopy(document)
            if version < "1.30" and shown["kind"] == "DaemonSet":
                for container in shown["spec"]["template"]["spec"]["containers"]:
                    container["securityContext"].pop("appArmorProfile", None)
            try:
                kubernetes_validate.validate(shown, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                sys.exit(f"{where}: {document['kind']} by {version}: {error.message} at {list(error.path)}")
    return documents


def merged(base, over):
    """Values over values, as Helm lays them."""
    made = copy.deepcopy(base)
    for name, value in over.items():
        both = isinstance(value, dict) and isinstance(made.get(name), dict)
        made[name] = merged(made[name], value) if both else value
    return made


def render(renderer, over, version=VERSIONS[-1]):
    """The chart's documents by kind, for a cluster of that version."""
    values = merged(yaml.safe_load((CHART / "values.yaml").read_text()), over)
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(values, file)
        file.flush()
        made = subprocess.run([renderer, CHART, file.name, "test", version], check=False, capture_output=True, text=True)
    if made.returncode:
        sys.exit(made.stderr)
    return {document["kind"]: document for document in validate(made.stdout, f"the chart with {over}")}


def container(documents):
    """The agent's."""
    return documents["DaemonSet"]["spec"]["template"]["spec"]["containers"][0]


def environment(documents):
    """Names and values."""
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in container(documents)["env"]}


def main(renderer):
    """All of it."""
    plain = validate((ROOT / "images/kubernetes/daemonset.yaml").read_text(), "daemonset.yaml")
    config = next(document for document in plain if document["kind"] == "ConfigMap")["data"]["tap-config.yaml"]
    print(f"  daemonset.yaml: {len(plain)} documents are valid by {', '.join(VERSIONS)}")
    pathlib.Path(sys.argv[2]).write_text(config)

    alone = render(renderer, {})
    assert set(alone) == {"DaemonSet", "ServiceAccount"}, set(alone)
    security = container(alone)["securityContext"]
    assert security["privileged"] is False and security["capabilities"]["drop"] == ["ALL"], security
    assert "QPOINT_CONFIG" not in environment(alone)
    assert security["appArmorProfile"]["type"] == "Unconfined", security
    old = render(renderer, {}, VERSIONS[0])
    assert "appArmorProfile" not in container(old)["securityContext"]
    annotations = old["DaemonSet"]["spec"]["template"]["metadata"]["annotations"]
    assert annotations["container.apparmor.security.beta.kubernetes.io/ringtap"] == "unconfined", annotations

    # Values as they were written for the other chart.
    known = {
        "image": {"repository": "registry.example/ringtap", "pullPolicy": "Always", "tag": "v0"},
        "imagePullSecrets": [{"name": "pull"}],
        "args": ["--tags=team:web"],
        "registrationEndpoint": "https://registration.example",
        "registrationToken": "not-used",
        "serviceAccount": {"create": True, "name": "qtap", "annotations": {"a": "b"}},
        "podAnnotations": {"c": "d"},
        "podLabels": {"e": "f"},
        "securityContext": {"privileged": True, "runAsUser": 0, "capabilities": {"add": ["CAP_BPF", "CAP_SYS_ADMIN"]}},
        "logLevel": "debug",
        "logEncoding": "json",
        "status": {"addr": "0.0.0.0", "port": 10002},
        "middlewareEgress": "127.0.0.1:11001",
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"cpu": "1000m", "memory": "1Gi"}},
        "volumes": [{"name": "extra", "emptyDir": {}}],
        "volumeMounts": [{"name": "extra", "mountPath": "/extra"}],
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [],
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "x", "operator": "Exists"}]}]}}},
        "config": "version: 2\n",
        "extraEnv": [{"name": "S3_ACCESS_KEY", "valueFrom": {"secretKeyRef": {"name": "s3", "key": "access"}}}],
        "integrations": {"containerd": {"enabled": True, "hostSocketPath": "/run/k3s/containerd/containerd.sock"}},
    }
    theirs = render(renderer, known)
    assert container(theirs)["image"] == "registry.example/ringtap:v0"
    assert environment(theirs)["HTTPD_LISTEN"] == "0.0.0.0:10002"
    assert container(theirs)["args"] == ["run", "--tags=team:web"]
    assert theirs["ServiceAccount"]["metadata"]["name"] == "qtap"
    assert theirs["ConfigMap"]["data"]["tap-config.yaml"].strip() == "version: 2"
    assert container(theirs)["securityContext"] == known["securityContext"]

    def checksum(documents):
        return documents["DaemonSet"]["spec"]["template"]["metadata"]["annotations"]["checksum/config"]

    assert checksum(theirs) != checksum(render(renderer, merged(known, {"config": "version: 2 # other\n"})))

    everything = render(renderer, {
        "privileged": True, "devtools": {"enabled": True, "tokenSecretName": "token"}, "dataHostPath": "",
        "existingConfigMap": "mine", "integrations": {"docker": {"enabled": True}}, "podMonitor": {"enabled": True},
        "priorityClassName": "system-node-critical", "podSecurityContext": {"fsGroup": 0},
    })
    assert set(everything) == {"DaemonSet", "ServiceAccount", "PodMonitor"}, set(everything)
    assert environment(everything)["RINGTAP_DEVTOOLS_TOKEN"]["secretKeyRef"]["name"] == "token"
    assert container(everything)["securityContext"]["privileged"] is True
    print("  chart: valid with its own values, with those of the chart before, and with everything on")


main(sys.argv[1])
