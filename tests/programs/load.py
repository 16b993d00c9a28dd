"""Numbered requests on parallel keep-alive connections. Usage: load.py URL RUN CONNECTIONS REQUESTS

REQUESTS is for each connection. Ends with an error if any answer differs from what was asked for."""

import http.client
import ssl
import sys
import threading
import urllib.parse

url, run = urllib.parse.urlsplit(sys.argv[1]), sys.argv[2]
connections, requests = int(sys.argv[3]), int(sys.argv[4])
context = ssl._create_unverified_context()
expected = bytes((i * 7 + i // 251) % 256 for i in range(1000))
failures = []


def work(worker):
    try:
        if url.scheme == "https":
            connection = http.client.HTTPSConnection(url.netloc, context=context)
        else:
            connection = http.client.HTTPConnection(url.netloc)
        for number in range(worker * requests, (worker + 1) * requests):
            connection.request("GET", f"/size/1000?n={number}", headers={"X-Run": run, "X-Number": str(number)})
            response = connection.getresponse()
            body = response.read()
            if response.status != 200 or body != expected:
                failures.append(f"{number}: {response.status}, {len(body)} bytes")
        connection.close()
    except Exception as error:
        failures.append(f"worker {worker}: {error!r}")


threads = [threading.Thread(target=work, args=(n,)) for n in range(connections)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(connections * requests - len(failures))
if failures:
    sys.exit("\n".join(failures[:10]))
