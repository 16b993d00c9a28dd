"""Header blocks by another encoder, and what they say, as a line of JSON each. Usage: hpack_blocks.py SEED BLOCKS"""

import json
import random
import sys

import hpack

chance = random.Random(int(sys.argv[1]))
encoder = hpack.Encoder()
# The other side allows so much.
SIZES = [0, 33, 100, 256, 4096, 20_000, 65_536]
NAMES = ["accept", "via", "user-agent", "x-" + "long-" * 40, "x-a", "x-b", "traceparent", "content-type", "age", "etag"]
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 !\"#$%&'()*+,-./:;<=>?@[]^_`{|}~"


def text(longest):
    size = int(longest ** chance.random())
    return "".join(chance.choices(LETTERS, k=size)).strip()


values = [text(300) for _ in range(40)]


def field():
    name = chance.choice(NAMES) if chance.random() < 0.8 else "x-" + str(chance.randrange(10**6))
    value = chance.choice(values) if chance.random() < 0.7 else text(2000)
    if chance.random() < 0.1:
        return hpack.NeverIndexedHeaderTuple(name, value)
    return hpack.HeaderTuple(name, value)


for number in range(int(sys.argv[2])):
    for _ in range(chance.choice([0, 0, 0, 0, 1, 2])):
        # Told the same size twice, this encoder forgets to write it down.
        encoder.header_table_size = chance.choice([size for size in SIZES if size != encoder.header_table_size])
    method = chance.choice(["GET", "POST", "PROPFIND"])
    fields = [(":method", method), (":scheme", "http"), (":path", f"/{number}/{chance.choice(values[:5]).encode().hex()}")]
    fields = [hpack.HeaderTuple(*one) for one in fields] + [field() for _ in range(chance.randrange(20))]
    wire = encoder.encode(fields, huffman=chance.random() < 0.7)
    print(json.dumps({"wire": wire.hex(), "fields": [list(one) for one in fields]}))
