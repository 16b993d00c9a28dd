"""What clients send, the same for all: (method, path, body). Each prints what it sent and got, a JSON line a request."""

import hashlib
import json


def requests(posts):
    """GETs of every framing and size class, and POSTs where the server takes them."""
    sizes = [0, 1, 255, 1000, 5000, 20_000, 300_000]
    yield from (("GET", f"/size/{n}?q=1&n={n}", b"") for n in sizes)
    if posts:
        yield from (("POST", "/echo", bytes((i * 13) % 256 for i in range(n))) for n in sizes[1:])
        yield ("GET", "/chunked/10000", b"")
        yield ("HEAD", "/size/5", b"")
        yield ("GET", "/204", b"")
        yield ("GET", "/error", b"")
        yield ("GET", "/close/4000", b"")


def truth(number, method, path, status, sent, received):
    sha1 = lambda data: hashlib.sha1(data).hexdigest()
    line = dict(id=str(number), method=method, path=path, status=status, sent=sha1(sent), received=sha1(received))
    print(json.dumps(line), flush=True)
