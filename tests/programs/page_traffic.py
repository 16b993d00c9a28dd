"""A server and a client whose traffic the page shows: page_traffic.py serve PORT, or page_traffic.py ask PORT"""

import http.client
import http.server
import sys
import time


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def send(self, status, kind, body):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("X-Hostile", "<script>document.title='hacked'</script>")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.path.startswith("/page/json"):
            time.sleep(0.05)
            self.send(200, "application/json", b'{"hello":"world","list":[1,2,{"deep":"\\u003cb\\u003e"}]}')
        elif self.path.startswith("/page/503"):
            self.send(503, "text/plain", b"out of order")
        elif self.path.startswith("/page/events"):
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()
            for name in (b"first", b"second"):
                self.wfile.write(b"event: x\ndata: " + name + b" event\n\n")
                self.wfile.flush()
                time.sleep(0.1)
            self.close_connection = True
        elif self.path.startswith("/page/binary"):
            self.send(200, "application/octet-stream", bytes(range(256)) * 16)
        else:
            self.send(200, "text/html", b"<img src=x onerror=alert(1)><script>document.title='hacked'</script>")


def main():
    what, port = sys.argv[1], int(sys.argv[2])
    if what == "serve":
        http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
    paths = ["/page/json?token=secret-value&x=1", "/page/503", "/page/events", "/page/binary", "/page/plain",
             "/page/hostile/<img/src=x/onerror=alert(1)>"]
    for path in paths * int(sys.argv[3] if len(sys.argv) > 3 else 1):
        client = http.client.HTTPConnection("127.0.0.1", port)
        client.putrequest("GET", path, skip_accept_encoding=True)
        client.putheader("User-Agent", "<b>client</b>")
        client.endheaders()
        client.getresponse().read()
        client.close()


main()
