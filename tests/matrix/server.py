# server.py http|asyncio PORT CERT KEY: answers "# echo PATH".
import ssl, sys
kind, port, cert, key = sys.argv[1:]
ctx = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH); ctx.load_cert_chain(cert, key)
if kind == "asyncio":
    from aiohttp import web
    app = web.Application()
    async def echo(r): return web.Response(text=f"# echo {r.path}\n")
    app.router.add_route("*", "/{p:.*}", echo)
    sys.exit(web.run_app(app, host="127.0.0.1", port=int(port), ssl_context=ctx, shutdown_timeout=0.1))
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class H(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        b = f"# echo {self.path}\n".encode()
        self.send_response(200); self.send_header("Content-Length", len(b)); self.end_headers(); self.wfile.write(b)
s = ThreadingHTTPServer(("127.0.0.1", int(port)), H)
s.socket = ctx.wrap_socket(s.socket, server_side=True)
s.serve_forever()
