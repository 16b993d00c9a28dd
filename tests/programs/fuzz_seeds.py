"""Seeds for the fuzz targets of traffic. Usage: fuzz_seeds.py TARGET FOLDER

Made of the public corpora where they are, and of a few messages where not."""

import glob
import gzip
import json
import os
import re
import sys
import zlib

target, folder = sys.argv[1:]
corpora = os.environ.get("RINGTAP_CORPORA", os.path.join(os.path.dirname(__file__), "../../../shared/corpora"))
seeds = []


def pieces(*parts):
    """A script as the targets read it: direction and length, then the bytes."""
    out = b"\x01"
    for received, data in parts:
        for at in range(0, len(data), 255):
            some = data[at : at + 255]
            out += bytes([received, len(some)]) + some
    return out


def wire(block):
    return block.rstrip("\n").replace("\n", "\r\n").replace("\\r", "\r").replace("\\n", "\n").encode("latin-1", "ignore")


GET, OK = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
if target == "http1":
    seeds.append(pieces((0, GET), (1, OK), (0, GET), (1, OK)))
    for file in glob.glob(corpora + "/llhttp/test/*/*.md"):
        received = int("/response/" in file)
        for block in re.findall(r"```http\n(.*?)```", open(file).read(), re.S):
            seeds.append(pieces((0, GET), (1, wire(block))) if received else pieces((0, wire(block)), (1, OK)))
elif target == "http2":
    head = lambda kind, flags, stream, data: len(data).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + data
    get = head(1, 5, 1, b"\x82\x86\x84\x41\x01h") + head(1, 5, 3, b"\x83\x86\x84\xbe")
    seeds.append(pieces((0, get), (1, head(1, 4, 1, b"\x88") + head(0, 1, 1, b"body")), (1, head(1, 5, 3, b"\x89"))))
    for file in glob.glob(corpora + "/http2-frames/*/*.json"):
        seeds.append(pieces((0, get), (1, bytes.fromhex(json.load(open(file))["wire"]))))
    for file in glob.glob(corpora + "/hpack/nghttp2/*.json")[:12]:
        blocks = [bytes.fromhex(case["wire"]) for case in json.load(open(file))["cases"]][:6]
        seeds.append(pieces((0, b"".join(head(1, 5, 2 * n + 1, block) for n, block in enumerate(blocks)))))
elif target == "hpack":
    for file in glob.glob(corpora + "/hpack/*/*.json")[::6]:
        blocks = [bytes.fromhex(case.get("wire", "")) for case in json.load(open(file))["cases"]][:8]
        seeds.append(b"\x02" + b"".join(bytes([len(block)]) + block for block in blocks if 0 < len(block) < 256))
    seeds.append(b"\x00\x04\x82\x86\x84\xbe")
elif target == "websocket":
    frame = lambda first, data: bytes([first, 0x80 | len(data), 1, 2, 3, 4]) + bytes(b ^ (i % 4 + 1) for i, b in enumerate(data))
    deflate = zlib.compressobj(wbits=-15)
    packed = deflate.compress(b"hello hello hello") + deflate.flush(zlib.Z_SYNC_FLUSH)
    seeds.append(pieces((0, frame(0x81, b"hi") + frame(0xC1, packed[:-4]) + frame(0x88, b"\x03\xe8")), (1, b"\x82\x02ok\x8a\x00")))
elif target == "dns":
    question = b"\x00\x01\x81\x80\x00\x01\x00\x01\x00\x00\x00\x00\x01a\x04test\x00\x00\x01\x00\x01"
    answer = question + b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\x7f\x00\x00\x01"
    seeds += [answer, b"\x05" + len(answer).to_bytes(2, "big") + answer]
else:
    text = b"what is said twice is said twice " * 9
    raw = zlib.compressobj(wbits=-15)
    seeds += [b"\x00\x80" + gzip.compress(text), b"\x01\x80" + zlib.compress(text), b"\x01\xc0" + raw.compress(text) + raw.flush()]
    seeds += [b"\x02\x80" + bytes.fromhex("8b02806120626f647903"), b"\x03\x80" + bytes.fromhex("28b52ffd0406310000610062006f0064007900")]
for number, seed in enumerate(seeds):
    with open(f"{folder}/seed-{number}", "wb") as file:
        file.write(seed)
