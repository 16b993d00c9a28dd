"""An image archive as dockerTools makes it: image.py ROOT NAME TAG, with the image's configuration in $config."""

import gzip
import hashlib
import io
import json
import os
import sys
import tarfile

root, name, tag = sys.argv[1:]


def plain(info):
    """Nothing of the machine that made it."""
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    info.mtime = 0
    return info


layer = io.BytesIO()
with tarfile.open(fileobj=layer, mode="w", format=tarfile.GNU_FORMAT) as tar:
    for entry in sorted(os.listdir(root)):
        tar.add(os.path.join(root, entry), entry, filter=plain)
layer = layer.getvalue()
diff = hashlib.sha256(layer).hexdigest()
config = {
    "architecture": "amd64" if os.uname().machine == "x86_64" else "arm64",
    "os": "linux",
    "config": json.loads(os.environ["config"]),
    "rootfs": {"type": "layers", "diff_ids": [f"sha256:{diff}"]},
}
config = json.dumps(config).encode()
digest = hashlib.sha256(config).hexdigest()
manifest = [{"Config": f"{digest}.json", "RepoTags": [f"{name}:{tag}"], "Layers": [f"{diff}/layer.tar"]}]
with gzip.open("image.tar.gz", "wb", compresslevel=1) as packed, tarfile.open(fileobj=packed, mode="w") as tar:
    parts = {"manifest.json": json.dumps(manifest).encode(), f"{digest}.json": config, f"{diff}/layer.tar": layer}
    for path, data in parts.items():
        info = plain(tarfile.TarInfo(path))
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
