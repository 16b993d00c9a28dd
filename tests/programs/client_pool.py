"""Many TLS connections at once through memory BIOs, whose ciphertext a pool of threads moves in one of several ways.

Each request names the local port of its own connection. Usage: client_pool.py PORT MODE CONNECTIONS SIZE..."""

import queue
import random
import select
import socket
import ssl
import sys
import threading

port, mode, count = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
SIZES = [int(size) for size in sys.argv[4:]]
REQUESTS, WORKERS = 3, 8
context = ssl._create_unverified_context()
jobs, done = queue.Queue(), threading.Semaphore(0)


class Connection:
    def __init__(self, number):
        self.number, self.left, self.lock = number, REQUESTS, threading.Lock()
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing)
        self.shaken, self.answer, self.body = False, b"", 0

    def receive(self):
        """Ciphertext that has come; it is not looked at."""
        return self.socket.recv(65536)

    def send(self):
        data = self.outgoing.read()
        if data and mode == "relayed":
            jobs.put(lambda: self.socket.sendall(data))
        elif data:
            self.socket.sendall(data)

    def request(self):
        local = self.socket.getsockname()[1]
        size = SIZES[(self.number + self.left) % len(SIZES)]
        head = f"GET /size/{size}?port={local} HTTP/1.1\r\nhost: localhost\r\nx-fill: {'x' * (self.number % 90)}\r\n\r\n"
        self.tls.write(head.encode())
        self.left -= 1

    def work(self, data):
        """Everything that the ciphertext allows."""
        self.incoming.write(data)
        try:
            if not self.shaken:
                self.tls.do_handshake()
                self.shaken = True
                self.request()
            while True:
                self.answer += self.tls.read(65536)
                head, separator, rest = self.answer.partition(b"\r\n\r\n")
                length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
                if separator and len(rest) >= int(length[0].split(b":")[1]):
                    self.answer = b""
                    if not self.left:
                        return True
                    self.request()
        except ssl.SSLWantReadError:
            pass
        finally:
            self.send()
        return False


def worker():
    while (job := jobs.get()) is not None:
        job()


def finish(connection, data):
    if connection.work(data):
        connection.socket.close()
        done.release()
    else:
        poll.modify(connection.socket, select.EPOLLIN | select.EPOLLONESHOT)


def coupled(connection):
    jobs.put(lambda: finish(connection, connection.receive()))


def handed(connection):
    data = connection.receive()
    jobs.put(lambda: finish(connection, data))


def scattered(connection):
    jobs.put(lambda: handed(connection))


poll, connections = select.epoll(), {}
for number in range(count):
    connection = Connection(number)
    connections[connection.socket.fileno()] = connection
    connection.work(b"")
    poll.register(connection.socket, select.EPOLLIN | select.EPOLLONESHOT)
threads = [threading.Thread(target=worker, daemon=True) for _ in range(WORKERS)]
for thread in threads:
    thread.start()
finished = 0
while finished < count:
    ready = [connections[fd] for fd, _ in poll.poll(0.05)]
    if mode == "batch":
        received = [(connection, connection.receive()) for connection in ready]
        random.shuffle(received)
        for connection, data in received:
            finish(connection, data)
    else:
        for connection in ready:
            {"coupled": coupled, "handed": handed}.get(mode, scattered)(connection)
    while done.acquire(blocking=False):
        finished += 1
print(finished)
