"""The line of the campaign gives the answers that it is told, then the server's own."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx

from tests.chaos.machines import Gate


class Echo(BaseHTTPRequestHandler):
    """Gives back what it is sent."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_so_many_requests_get_the_answer_of_the_line():
    server = HTTPServer(("127.0.0.1", 0), Echo)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with Gate(server.server_port) as line, httpx.Client(base_url=line.url) as client:
        answers = [client.post("/", content=b"x" * 100_000)]
        line.answer((503, b"later"), 2)
        answers += [client.post("/", content=b"y" * 100_000) for _ in range(3)]
    server.shutdown()
    server.server_close()
    assert [answer.status_code for answer in answers] == [200, 503, 503, 200]
    assert [answer.text for answer in answers[1:3]] == ["later"] * 2
    assert answers[3].content == b"y" * 100_000


def test_an_opened_line_forgets_what_it_was_told():
    server = HTTPServer(("127.0.0.1", 0), Echo)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with Gate(server.server_port) as line:
        line.answer((500, b""), 5)
        line.open()
        assert httpx.post(line.url, content=b"x").status_code == 200
    server.shutdown()
    server.server_close()
