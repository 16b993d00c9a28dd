"""The bill of materials is valid CycloneDX, and names what the binary is made of."""

import json
import pathlib
import subprocess
import sys

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

root = pathlib.Path(__file__).parents[2]
text = subprocess.run([root / "images/oci/sbom"], cwd=root, check=True, stdout=subprocess.PIPE, text=True).stdout
fault = JsonStrictValidator(SchemaVersion.V1_5).validate_str(text)
if fault:
    sys.exit(f"the bill of materials is not valid: {fault}")
names = {component["name"] for component in json.loads(text)["components"]}
assert {"aya", "io-uring", "tokio-uring", "arrow-array", "parquet", "rayon", "sha1", "mimalloc"} <= names, names
assert "criterion" not in names and "proptest" not in names, "what only tests need is not in it"
print(f"  bill of materials: valid, {len(names)} crates")
