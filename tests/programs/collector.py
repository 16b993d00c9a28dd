"""Takes OTLP logs over HTTP, or gRPC, and prints each request as a line of JSON.

Usage: collector.py PORT [--grpc] [--cert FILE --key FILE [--client-ca FILE]] [--want-header NAME=VALUE]
"""

import argparse
import gzip
import http.server
import ssl
import sys
from concurrent import futures

from google.protobuf.json_format import MessageToJson
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse

parser = argparse.ArgumentParser()
parser.add_argument("port", type=int)
parser.add_argument("--grpc", action="store_true")
for name in ("--cert", "--key", "--client-ca", "--want-header"):
    parser.add_argument(name)
arguments = parser.parse_args()
wanted = tuple(arguments.want_header.split("=", 1)) if arguments.want_header else None


def take(body):
    print(MessageToJson(ExportLogsServiceRequest.FromString(body), indent=None), flush=True)
    return ExportLogsServiceResponse().SerializeToString()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        allowed = wanted is None or self.headers.get(wanted[0]) == wanted[1]
        answer = take(body) if allowed else b""
        self.send_response(200 if allowed else 401)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)


class Server(http.server.ThreadingHTTPServer):
    """The handshake belongs to the thread of its connection: one that fails holds up nobody."""

    context = None

    def finish_request(self, request, client_address):
        if self.context:
            request = self.context.wrap_socket(request, server_side=True)
        super().finish_request(request, client_address)

    def handle_error(self, *_):
        pass


def read(path):
    with open(path, "rb") as file:
        return file.read()


def serve_grpc():
    import grpc

    method = grpc.unary_unary_rpc_method_handler(lambda body, _: take(body))
    service = "opentelemetry.proto.collector.logs.v1.LogsService"
    server = grpc.server(futures.ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, {"Export": method})])
    address = f"127.0.0.1:{arguments.port}"
    if arguments.cert:
        clients = read(arguments.client_ca) if arguments.client_ca else None
        pairs = [(read(arguments.key), read(arguments.cert))]
        server.add_secure_port(address, grpc.ssl_server_credentials(pairs, clients, clients is not None))
    else:
        server.add_insecure_port(address)
    server.start()
    server.wait_for_termination()


def serve_http():
    server = Server(("127.0.0.1", arguments.port), Handler)
    if arguments.cert:
        server.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.context.load_cert_chain(arguments.cert, arguments.key)
        if arguments.client_ca:
            server.context.load_verify_locations(arguments.client_ca)
            server.context.verify_mode = ssl.CERT_REQUIRED
    server.serve_forever()


sys.exit(serve_grpc() if arguments.grpc else serve_http())
