"""Takes OTLP logs over HTTP and prints a line of JSON for each event: its type, id, path and digest, and whether the
object that it speaks of is in the bucket's folder at that moment.

Usage: receiver.py PORT FOLDER"""

import gzip
import http.server
import json
import os
import sys

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse

FOLDER = sys.argv[2]


def text(value):
    return value.string_value if value.HasField("string_value") else None


def lines(request):
    for resource in request.resource_logs:
        for scope in resource.scope_logs:
            for record in scope.log_records:
                attributes = {one.key: one.value for one in record.attributes}
                event = {one.key: text(one.value) for one in attributes["event"].kvlist_value.values}
                line = {"type": text(attributes["event.type"]), "id": event.get("requestId"), "url": event.get("url")}
                if line["type"] == "artifact_record":
                    line["digest"] = event["digest"]
                    line["there"] = os.path.exists(os.path.join(FOLDER, event["digest"]))
                yield json.dumps(line)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        length = int(self.headers["Content-Length"])
        body = self.rfile.read(length)
        if len(body) < length:
            return
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        text = "".join(line + "\n" for line in lines(ExportLogsServiceRequest.FromString(body)))
        # In one piece: requests are taken side by side.
        os.write(1, text.encode())
        answer = ExportLogsServiceResponse().SerializeToString()
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)


http.server.ThreadingHTTPServer.request_queue_size = 64
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
