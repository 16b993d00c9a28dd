"""Each request through other operations of io_uring: one keep-alive connection. Usage: client_uring.py URL RUN POSTS"""

import ctypes
import itertools
import mmap
import os
import socket
import struct
import sys
import urllib.parse

from plan import truth

url, run = urllib.parse.urlsplit(sys.argv[1]), sys.argv[2]
libc = ctypes.CDLL(None, use_errno=True)
SETUP, ENTER, REGISTER = 425, 426, 427
READV, WRITEV, WRITE_FIXED, SENDMSG, RECVMSG = 1, 2, 5, 9, 10
READ, WRITE, SEND, RECV, SPLICE, PROVIDE_BUFFERS, SEND_ZC = 22, 23, 26, 27, 30, 31, 47
FIXED_FILE, LINK, BUFFER_SELECT, MULTISHOT, MORE = 1, 4, 32, 2, 2


def call(number, *arguments):
    result = libc.syscall(number, *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


class Ring:
    """Eight entries, which is more than is ever under way."""

    def __init__(self):
        params = (ctypes.c_uint32 * 30)()
        self.fd = call(SETUP, 8, ctypes.byref(params))
        self.sq, self.cq = params[10:20], params[20:30]
        # One mapping serves both queues on every kernel that has the operations used here.
        self.ring = mmap.mmap(self.fd, self.sq[6] + 8 * 4, mmap.MAP_SHARED, offset=0)
        self.entries = mmap.mmap(self.fd, 8 * 64, mmap.MAP_SHARED, offset=0x10000000)

    def word(self, at, value=None):
        if value is not None:
            self.ring[at : at + 4] = struct.pack("<I", value & 0xFFFFFFFF)
        return struct.unpack("<I", self.ring[at : at + 4])[0]

    def submit(self, entries, wait):
        tail = self.word(self.sq[1])
        for entry in entries:
            at = tail & 7
            self.entries[at * 64 : at * 64 + 64] = entry
            self.word(self.sq[6] + 4 * at, at)
            tail += 1
        self.word(self.sq[1], tail)
        call(ENTER, self.fd, len(entries), wait, 1, None, 0)

    def completions(self):
        head, found = self.word(self.cq[0]), []
        while head != self.word(self.cq[1]):
            at = self.cq[5] + 16 * (head & 15)
            found.append(struct.unpack("<QiI", self.ring[at : at + 16]))
            head += 1
        self.word(self.cq[0], head)
        return found

    def run(self, *entries):
        """Results of requests, in the order in which they completed."""
        self.submit(entries, len(entries))
        results = [result for _, result, _ in self.completions()]
        assert len(results) == len(entries) and min(results) >= 0, results
        return results


class Iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]


class Message(ctypes.Structure):
    _fields_ = [("name", ctypes.c_void_p), ("namelen", ctypes.c_uint32), ("iov", ctypes.POINTER(Iovec)), ("iovlen", ctypes.c_size_t)]
    _fields_ += [("control", ctypes.c_void_p), ("controllen", ctypes.c_size_t), ("flags", ctypes.c_int)]


def entry(op, fd, address=0, length=0, flags=0, ioprio=0, offset=0, buffer=0, splice=0, data=1, op_flags=0):
    return struct.pack("<BBHiQQIIQHHiQQ", op, flags, ioprio, fd, offset, address, length, op_flags, data, buffer, 0, splice, 0, 0)


def buffer_of(data):
    return ctypes.create_string_buffer(data, len(data))


def vectors_of(buffers):
    return (Iovec * len(buffers))(*[Iovec(ctypes.addressof(b), len(b)) for b in buffers])


ring = Ring()
s = socket.create_connection((url.hostname, url.port))
fd = s.fileno()
# The socket is the file at 1, and a buffer the one at 0, for requests that name them so.
files = (ctypes.c_int * 2)(-1, fd)
call(REGISTER, ring.fd, 2, files, 2)
fixed = ctypes.create_string_buffer(4096)
call(REGISTER, ring.fd, 0, vectors_of([fixed]), 1)
chosen = [ctypes.create_string_buffer(512) for _ in range(16)]


def send(op, flags=0, file=fd):
    def way(data):
        b = buffer_of(data)
        assert ring.run(entry(op, file, ctypes.addressof(b), len(b), flags)) == [len(data)]

    return way


def send_zc(data):
    b = buffer_of(data)
    ring.submit([entry(SEND_ZC, fd, ctypes.addressof(b), len(b))], 2)
    while len(found := ring.completions()) < 2:
        ring.submit([], 1)
    assert found[0][1] == len(data), found


def send_vectors(data):
    parts = [buffer_of(data[:5]), buffer_of(data[5:30]), buffer_of(data[30:])]
    vectors = vectors_of(parts)
    assert ring.run(entry(WRITEV, fd, ctypes.addressof(vectors), 3)) == [len(data)]


def send_message(data):
    parts = [buffer_of(data[:11]), buffer_of(data[11:])]
    message = Message(iov=vectors_of(parts), iovlen=2)
    assert ring.run(entry(SENDMSG, fd, ctypes.addressof(message), 1)) == [len(data)]


def send_fixed(data):
    fixed.raw = data.ljust(4096)
    assert ring.run(entry(WRITE_FIXED, fd, ctypes.addressof(fixed), len(data))) == [len(data)]


def send_linked(data):
    """Several completions come at once: the first one's bytes are not those that TCP sent last."""
    parts = [buffer_of(data[:50]), buffer_of(data[50:200]), buffer_of(data[200:])]
    entries = [entry(SEND, fd, ctypes.addressof(b), len(b), LINK if b is not parts[-1] else 0) for b in parts]
    assert ring.run(*entries) == [len(b) for b in parts]


def send_spliced(data):
    """The head by a request, the body through a pipe: its bytes are missing, and nothing else is."""
    head, _, body = data.partition(b"\r\n\r\n")
    send(SEND)(head + b"\r\n\r\n")
    source, sink = os.pipe()
    os.write(sink, body)
    assert os.splice(source, fd, len(body)) == len(body)
    os.close(source)
    os.close(sink)


def receive(op, flags=0, file=fd):
    def way():
        b = ctypes.create_string_buffer(4096)
        count = ring.run(entry(op, file, ctypes.addressof(b), len(b), flags))[0]
        return b.raw[:count]

    return way


def receive_vectors():
    parts = [ctypes.create_string_buffer(7), ctypes.create_string_buffer(1000)]
    vectors = vectors_of(parts)
    count = ring.run(entry(READV, fd, ctypes.addressof(vectors), 2))[0]
    return b"".join(b.raw for b in parts)[:count]


def receive_message():
    """The header's place is used for something else as soon as the request is handed in."""
    parts = [ctypes.create_string_buffer(9), ctypes.create_string_buffer(1000)]
    vectors = vectors_of(parts)
    message = Message(iov=vectors, iovlen=2)
    ring.submit([entry(RECVMSG, fd, ctypes.addressof(message), 1)], 0)
    ctypes.memset(ctypes.addressof(message), 0, ctypes.sizeof(message))
    ctypes.memset(ctypes.addressof(vectors), 0, ctypes.sizeof(vectors))
    return ready, lambda count: b"".join(b.raw for b in parts)[:count]


def ready():
    while not (found := ring.completions()):
        ring.submit([], 1)
    return found


def provide():
    for i, b in enumerate(chosen):
        ring.run(entry(PROVIDE_BUFFERS, 1, ctypes.addressof(b), len(b), offset=i, buffer=3))


def receive_chosen():
    """Into one of the buffers that the kernel was given."""
    provide()
    ring.submit([entry(RECV, fd, 0, 512, BUFFER_SELECT, buffer=3)], 1)
    [(_, count, flags)] = ready()
    return chosen[flags >> 16].raw[:count]


def receive_many(size):
    """One request, and a completion for whatever comes."""
    provide()
    ring.submit([entry(RECV, fd, 0, 0, BUFFER_SELECT, MULTISHOT, buffer=3, data=77)], 0)
    got = b""
    while len(got) < size:
        for _, count, flags in ready():
            assert count > 0, count
            got += chosen[flags >> 16].raw[:count]
    ring.submit([entry(14, -1, 77, data=78)], 1)  # cancel it
    while not any(data == 77 and not flags & MORE for data, _, flags in ready()):
        pass
    ring.completions()
    return got


def exchange(number, send, read):
    body = bytes((i * 13) % 256 for i in range(300 + number))
    head = f"POST /echo?n={number} HTTP/1.1\r\nHost: {url.netloc}\r\nX-Run: {run}\r\nX-Number: {number}\r\nContent-Length: {len(body)}\r\n\r\n"
    got = b""
    if read is receive_message:
        # It waits for the answer before the request is sent.
        wait, bytes_of = receive_message()
        socket.socket.sendall(s, head.encode() + body)
        [(_, count, _)] = wait()
        got, read = bytes_of(count), receive(RECV)
    else:
        send(head.encode() + body)
    if read is receive_many:
        # As long as all answers of the server are, but for the length's digits, which are the same here.
        got, read = receive_many(lengths[-1] - len(bodies[-1]) + len(body)), receive(RECV)
    while b"\r\n\r\n" not in got or len(got) < got.index(b"\r\n\r\n") + 4 + len(body):
        got += read()
    answer, _, rest = got.partition(b"\r\n\r\n")
    bodies.append(body)
    lengths.append(len(got))
    if send is not send_spliced:
        truth(number, "POST", f"/echo?n={number}", int(answer.split()[1]), body, rest)


bodies, lengths = [], []
SENDS = [send(SEND), send(WRITE), send_vectors, send_message, send_fixed, send_linked, send(SEND, FIXED_FILE, 1), send_zc]
READS = [receive(RECV), receive(READ), receive_vectors, receive_chosen, receive(RECV, FIXED_FILE, 1), receive_message]
ways = list(zip(itertools.cycle(SENDS), READS + READS))
# Not between the others: what comes after its last byte is not known to whoever cancels it.
ways = [(send, read) for send, read in ways] + [(send(SEND), receive_many)] * 3
ways += [(send_spliced, receive(RECV)), (send(SEND), receive(RECV))]
for number, (way, read) in enumerate(ways, 10):
    exchange(number, way, read)
s.close()
