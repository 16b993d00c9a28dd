"""A server whose second answer has a body from a pipe, and its client, in one process. Usage: splice.py RUN SIZE"""

import http.client
import os
import socket
import sys
import threading

from plan import truth

run, size = sys.argv[1], int(sys.argv[2])


def serve(s):
    for number in range(3):
        request = b""
        while b"\r\n\r\n" not in request:
            request += s.recv(65536)
        body = bytes(size) if number == 1 else b"plain"
        s.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
        if number != 1:
            s.sendall(body)
            continue
        source, sink = os.pipe()
        left = os.write(sink, body)
        assert left == size, "a pipe holds 64 KiB"
        while left:
            left -= os.splice(source, s.fileno(), left)
    s.close()


listener = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(listener.getsockname())
thread = threading.Thread(target=serve, args=(listener.accept()[0],))
thread.start()
connection = http.client.HTTPConnection("127.0.0.1")
connection.sock = client
for number, path in enumerate(["/before", "/spliced", "/after"]):
    connection.request("GET", path, headers={"X-Run": run, "X-Number": str(number)})
    response = connection.getresponse()
    body = response.read()
    if number != 1:
        truth(number, "GET", path, response.status, b"", body)
connection.close()
thread.join()
