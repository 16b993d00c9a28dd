"""Each request through other system calls: one keep-alive connection. Usage: client_calls.py URL RUN POSTS"""

import ctypes
import os
import socket
import sys
import urllib.parse

from plan import truth

url, run = urllib.parse.urlsplit(sys.argv[1]), sys.argv[2]
libc = ctypes.CDLL(None, use_errno=True)


class Iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]


class Message(ctypes.Structure):
    _fields_ = [("name", ctypes.c_void_p), ("namelen", ctypes.c_uint32), ("iov", ctypes.POINTER(Iovec)), ("iovlen", ctypes.c_size_t)]
    _fields_ += [("control", ctypes.c_void_p), ("controllen", ctypes.c_size_t), ("flags", ctypes.c_int), ("len", ctypes.c_uint32)]


class Messages(ctypes.Structure):
    """mmsghdr: the header proper is 56 bytes, and its padding ends with the flags."""

    _fields_ = [("head", ctypes.c_byte * 56), ("len", ctypes.c_uint32), ("pad", ctypes.c_uint32)]


def messages(buffers):
    """As many messages as buffers, each with two vectors where it is long enough."""
    array, keep = (Messages * len(buffers))(), []
    for slot, buffer in zip(array, buffers):
        half = len(buffer) // 2
        base = ctypes.addressof(buffer)
        vectors = (Iovec * 2)(Iovec(base, half), Iovec(base + half, len(buffer) - half))
        head = Message(iov=vectors, iovlen=2)
        ctypes.memmove(ctypes.addressof(slot), ctypes.addressof(head), 56)
        keep.append(vectors)
    return array, keep


def sendmmsg(s, data):
    parts = [data[i : i + 40] for i in range(0, len(data), 40)]
    buffers = [ctypes.create_string_buffer(part, len(part)) for part in parts]
    array, keep = messages(buffers)
    sent = libc.sendmmsg(s.fileno(), array, len(buffers), 0)
    assert sent == len(buffers), (sent, ctypes.get_errno(), keep)


def recvmmsg(s, size):
    buffers = [ctypes.create_string_buffer(100) for _ in range(8)]
    array, keep = messages(buffers)
    WAITFORONE = 0x10000
    count = libc.recvmmsg(s.fileno(), array, len(buffers), WAITFORONE, None)
    assert count > 0, (count, ctypes.get_errno(), keep)
    return b"".join(buffers[i].raw[: array[i].len] for i in range(count))


def readv(s, size):
    parts = [bytearray(7), bytearray(0), bytearray(1000)]
    count = os.readv(s.fileno(), parts)
    return b"".join(parts)[:count]


def recvmsg(s, size):
    return s.recvmsg(size)[0]


def peeking(s, size):
    s.recv(10, socket.MSG_PEEK)
    return s.recv(size)


WAYS = [
    (lambda s, d: os.write(s.fileno(), d), lambda s, n: os.read(s.fileno(), n)),
    (lambda s, d: os.writev(s.fileno(), [d[:5], b"", d[5:30], d[30:]]), readv),
    (lambda s, d: s.sendmsg([d[:11], d[11:]]), recvmsg),
    (sendmmsg, recvmmsg),
    (lambda s, d: s.sendall(d), peeking),
]

s = socket.create_connection((url.hostname, url.port))
for number, (send, receive) in enumerate(WAYS + WAYS):
    body = bytes((i * 13) % 256 for i in range(300 + number))
    head = f"POST /echo?n={number} HTTP/1.1\r\nHost: {url.netloc}\r\nX-Run: {run}\r\nX-Number: {number}\r\nContent-Length: {len(body)}\r\n\r\n"
    send(s, head.encode() + body)
    got = b""
    while b"\r\n\r\n" not in got:
        got += receive(s, 65536)
    answer, _, rest = got.partition(b"\r\n\r\n")
    while len(rest) < len(body):
        rest += receive(s, 65536)
    truth(number, "POST", f"/echo?n={number}", int(answer.split()[1]), body, rest)
s.close()
