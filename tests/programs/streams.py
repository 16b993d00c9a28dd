"""A WebSocket with compression, and server-sent events. Usage: streams.py

The server and both clients are this program."""

import asyncio
import http.client
import threading

import websockets


async def answer(socket):
    async for message in socket:
        await socket.send(message.upper() if isinstance(message, str) else message[::-1])


async def talk():
    async with websockets.serve(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with websockets.connect(f"ws://127.0.0.1:{port}/chat?room=1") as socket:
            for message in ["hello", "hello again " * 100, b"\x00\x01\x02"]:
                await socket.send(message)
                await socket.recv()
            await socket.ping()
            await asyncio.sleep(0.2)


class Events(threading.Thread):
    def __init__(self):
        super().__init__(daemon=True)
        import socket
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]

    def run(self):
        import time
        peer, _ = self.listener.accept()
        peer.recv(4096)
        peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        for n in range(5):
            time.sleep(0.1)
            peer.sendall(b"id: %d\ndata: tick %d\n\n" % (n, n))
        peer.close()


asyncio.run(talk())
events = Events()
events.start()
connection = http.client.HTTPConnection("127.0.0.1", events.port)
connection.request("GET", "/events")
assert connection.getresponse().read().count(b"tick") == 5
