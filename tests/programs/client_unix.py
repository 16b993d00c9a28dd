"""One keep-alive connection on a Unix socket, and others beside it that speak something else. Usage: client_unix.py PATH RUN POSTS"""

import http.client
import socket
import sys

from plan import requests, truth

path, run, posts = sys.argv[1], sys.argv[2], sys.argv[3] == "posts"


class Connection(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(path)


def chatter():
    """As D-Bus and others talk: their commands are not requests, even where they are called alike."""
    ours, theirs = socket.socketpair()
    for line in (b"\0AUTH EXTERNAL 30\r\n", b"GET key-of-a-store\r\n", b"l\1\0\1\0\0\0\0\1\0\0\0n\0\0\0"):
        ours.sendall(line)
        assert theirs.recv(100) == line
    ours.close()
    theirs.close()


connection = Connection("localhost")
for number, (method, target, body) in enumerate(requests(posts)):
    chatter()
    connection.request(method, target, body or None, {"X-Run": run, "X-Number": str(number)})
    # Nothing is asked for, and nothing comes: that is no end.
    assert connection.sock.recv(0) == b""
    response = connection.getresponse()
    truth(number, method, target, response.status, body, response.read())
connection.close()
