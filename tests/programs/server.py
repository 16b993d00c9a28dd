"""HTTP/1.1 server with every framing of a body. Usage: server.py PORT [CERT KEY], or the path of a Unix socket for the port"""

import http.server
import socketserver
import ssl
import sys


def pattern(size):
    return bytes((i * 7 + i // 251) % 256 for i in range(size))


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def head(self, status, length=None, **headers):
        self.send_response(status)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("X-Answers", self.headers.get("X-Number", ""))
        self.send_header("Set-Cookie", "a=1")
        self.send_header("Set-Cookie", "b=2")
        if length is not None:
            self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def do_GET(self):
        kind, _, size = self.path.split("?")[0].strip("/").partition("/")
        size = int(size or 0)
        if kind == "chunked":
            self.head(200, Transfer_Encoding="chunked", Trailer="X-Sum")
            body = pattern(size)
            for at in range(0, size, 3000):
                part = body[at : at + 3000]
                self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
            self.wfile.write(b"0\r\nX-Sum: 9\r\n\r\n")
        elif kind == "close":
            self.head(200, Connection="close")
            self.wfile.write(pattern(size))
            self.close_connection = True
        elif kind in ("204", "304"):
            self.head(int(kind))
        elif kind == "error":
            self.head(500, 4)
            self.wfile.write(b"oops")
        elif kind == "silent":
            self.close_connection = True
        else:
            self.head(200, size)
            self.wfile.write(pattern(size))

    def do_HEAD(self):
        self.head(200, 12345)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.head(201, len(body))
        self.wfile.write(body)


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    request_queue_size = 128


class UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 128


is_path = sys.argv[1].startswith("/")
server = UnixServer(sys.argv[1], Handler) if is_path else Server(("127.0.0.1", int(sys.argv[1])), Handler)
if len(sys.argv) > 2:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[2], sys.argv[3])
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
server.serve_forever()
