"""A server and a client of HTTP/3 in one process. Usage: http3.py ADDRESS CERT KEY BYTES; the port is 443."""

import asyncio
import ssl
import sys

from aioquic.asyncio import QuicConnectionProtocol, connect, serve
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration

address, cert, key, size = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])


class Server(QuicConnectionProtocol):
    http = None

    def quic_event_received(self, event):
        self.http = self.http or H3Connection(self._quic)
        for one in self.http.handle_event(event):
            if isinstance(one, HeadersReceived):
                self.http.send_headers(one.stream_id, [(b":status", b"200")])
                self.http.send_data(one.stream_id, b"x" * size, end_stream=True)
                self.transmit()


class Client(QuicConnectionProtocol):
    http, got = None, 0

    def quic_event_received(self, event):
        self.http = self.http or H3Connection(self._quic)
        for one in self.http.handle_event(event):
            if isinstance(one, DataReceived):
                self.got += len(one.data)
                if one.stream_ended:
                    self.done.set_result(self.got)

    async def fetch(self):
        self.http = self.http or H3Connection(self._quic)
        self.done = asyncio.get_running_loop().create_future()
        fields = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"localhost"), (b":path", b"/")]
        self.http.send_headers(self._quic.get_next_available_stream_id(), fields, end_stream=True)
        self.transmit()
        return await self.done


async def main():
    served = QuicConfiguration(is_client=False, alpn_protocols=H3_ALPN)
    served.load_cert_chain(cert, key)
    server = await serve(address, 443, configuration=served, create_protocol=Server)
    asked = QuicConfiguration(is_client=True, alpn_protocols=H3_ALPN, verify_mode=ssl.CERT_NONE)
    async with connect(address, 443, configuration=asked, create_protocol=Client) as client:
        print(await asyncio.wait_for(client.fetch(), 20))
    server.close()


asyncio.run(main())
