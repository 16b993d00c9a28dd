"""Usage: client_curl.py URL RUN POSTS, or the path of a Unix socket for the URL"""

import subprocess
import sys
import tempfile

from plan import requests, truth

url, run, posts = sys.argv[1], sys.argv[2], sys.argv[3] == "posts"
by_path = []
if url.startswith("/"):
    by_path, url = ["--unix-socket", url], "http://localhost"
for number, (method, path, body) in enumerate(requests(posts)):
    with tempfile.NamedTemporaryFile() as sent, tempfile.NamedTemporaryFile() as received:
        sent.write(body)
        sent.flush()
        command = ["curl", "-sk", "--http1.1", *by_path, "-o", received.name, "-w", "%{http_code}"]
        command += ["-H", f"X-Run: {run}", "-H", f"X-Number: {number}", url + path]
        if method == "HEAD":
            command += ["-I"]
        if body:
            command += ["--data-binary", "@" + sent.name, "-H", "Expect: 100-continue" if len(body) > 10_000 else "Expect:"]
        status = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
        got = b"" if method == "HEAD" else open(received.name, "rb").read()
        truth(number, method, path, int(status), body, got)
