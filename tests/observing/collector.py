"""A collector of OpenTelemetry that keeps what it gets."""

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Collector(HTTPServer):
    """Keeps what is sent to it."""

    def __init__(self):
        self.got = []
        super().__init__(("127.0.0.1", 0), _Taken)

    @property
    def spans(self):
        return {
            span.name: (span, {a.key: a.value.string_value for a in one.resource.attributes})
            for request in self.got
            for one in request.resource_spans
            for scope in one.scope_spans
            for span in scope.spans
        }


class _Taken(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.server.got.append(ExportTraceServiceRequest.FromString(body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *args):
        del args


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector that listens for as long as the block runs."""
    server = Collector()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
