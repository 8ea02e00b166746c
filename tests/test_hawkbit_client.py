"""The client of the management API against a server that hangs up, with everything else right."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from sekisho_tools.hawkbit import Api


class Impatient(BaseHTTPRequestHandler):
    """Answers once per connection and closes it without saying so, as a server does with one that is idle."""

    protocol_version = "HTTP/1.1"
    done: list[str]
    hung_up: threading.Event

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.done.append(self.path)
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")
        self.wfile.flush()
        self.close_connection = True

    def finish(self) -> None:
        super().finish()
        self.connection.shutdown(2)
        self.connection.close()
        self.hung_up.set()

    def log_message(self, *_: object) -> None:
        """Nothing to print."""


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    Impatient.done, Impatient.hung_up = [], threading.Event()
    with ThreadingHTTPServer(("127.0.0.1", 0), Impatient) as found:
        thread = threading.Thread(target=found.serve_forever, daemon=True)
        thread.start()
        yield found
        found.shutdown()
        thread.join(10)


def test_a_connection_that_was_closed_while_idle_is_opened_again_for_what_must_not_be_sent_twice(
    server: ThreadingHTTPServer,
) -> None:
    api = Api(f"http://127.0.0.1:{server.server_address[1]}", "admin", "password")
    for number in range(3):
        Impatient.hung_up.clear()
        assert api.call("POST", f"/targets/{number}", {}) == {}
        assert Impatient.hung_up.wait(10)
    api.close()
    assert Impatient.done == [f"/rest/v1/targets/{number}" for number in range(3)]
