"""Stands between a client and a server and fails as networks and servers do. What is sent on is not changed.

Usage: faulty.py PORT TARGET SEED SHARE

SHARE: how many of a hundred connections fail. They are reset at once, answered 429 or 503, cut off in the midst of the
request or of the answer, or delayed."""

import asyncio
import random
import socket
import struct
import sys

PORT, TARGET, SEED, SHARE = (int(word) for word in sys.argv[1:5])
RANDOM = random.Random(SEED)
BUSY = (
    b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 0\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
)


def reset(writer):
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def pump(reader, writer, limit):
    """Sends on, up to a limit of bytes; whether the limit was reached."""
    while data := await reader.read(16384):
        writer.write(data[:limit])
        await writer.drain()
        if limit is not None:
            limit -= len(data)
            if limit <= 0:
                return True
    writer.write_eof()
    return False


async def serve(reader, writer):
    fault = RANDOM.choice(["reset", "busy", "request", "answer", "delay"]) if RANDOM.randrange(100) < SHARE else None
    try:
        if fault == "reset":
            return reset(writer)
        if fault == "busy":
            await reader.read(65536)
            writer.write(RANDOM.choice(BUSY))
            await writer.drain()
            await asyncio.sleep(0.05)
            return writer.close()
        if fault == "delay":
            await asyncio.sleep(RANDOM.uniform(0.05, 0.5))
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", TARGET)
        # Connections that are kept alive end some time, too.
        limits = [RANDOM.randrange(1, 2000) if fault == name else RANDOM.randrange(2, 20) << 20 for name in ("request", "answer")]
        if not SHARE:
            limits = [None, None]
        both = {asyncio.ensure_future(pump(reader, server_writer, limits[0]))}
        both.add(asyncio.ensure_future(pump(server_reader, writer, limits[1])))
        while both:
            done, both = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if any(one.exception() or one.result() for one in done):
                reset(writer)
                for one in both:
                    one.cancel()
                break
        server_writer.close()
        writer.close()
    except (ConnectionError, OSError):
        reset(writer)


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", PORT)
    async with server:
        await server.serve_forever()


asyncio.run(main())
