"""Requests without end to several servers at once, each body checked. Usage: steady.py CONNECTIONS URL...

CONNECTIONS are made to each of them. Ends when its input does, and prints how many requests each server answered: with
an error if any answer was not what was asked for. A URL that ends with a plus sign takes POST as well."""

import hashlib
import http.client
import ssl
import sys
import threading
import time
import urllib.parse

SIZES = [1000, 20000, 300000]
bodies = {size: bytes((i * 7 + i // 251) % 256 for i in range(size)) for size in SIZES}
digests = {size: hashlib.sha256(body).digest() for size, body in bodies.items()}
context = ssl._create_unverified_context()
done, failures = threading.Event(), []


def work(url, counts, number):
    host, posts = urllib.parse.urlsplit(url.rstrip("+")).netloc, url.endswith("+")
    connection = http.client.HTTPSConnection(host, context=context, timeout=60)
    while not done.is_set():
        size = SIZES[counts[number] % 7 % 3]
        try:
            if posts and counts[number] % 2:
                connection.request("POST", "/", body=bodies[size])
            else:
                connection.request("GET", f"/size/{size}?n={counts[number]}")
            answer = connection.getresponse()
            right = hashlib.sha256(answer.read()).digest() == digests[size]
            if answer.status not in (200, 201) or not right:
                failures.append(f"{url}: {answer.status}, {'the same' if right else 'other'} bytes")
                break
        except Exception as error:
            failures.append(f"{url}: {error!r}")
            break
        counts[number] += 1
        # Others want to work on this machine as well.
        time.sleep(0.002)


connections, urls = int(sys.argv[1]), sys.argv[2:]
counts = {url: [0] * connections for url in urls}
threads = [threading.Thread(target=work, args=(url, counts[url], n)) for url in urls for n in range(connections)]
for thread in threads:
    thread.start()
sys.stdin.read()
done.set()
for thread in threads:
    thread.join()
print(*(sum(counts[url]) for url in urls))
if failures:
    sys.exit("\n".join(failures[:10]))
