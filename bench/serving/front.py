"""What a server asks of the registry every few seconds, answered from memory.

MLflow works for 25 ms on each look. In reality that is another machine's work; here it would take the load's core in pieces of 4 ms, in
which nothing is sent and no answer is received, and the latency of whichever server follows a registry would show it. So MLflow answers a
look once, and the same bytes are given again until the route changes. Everything else is passed on.
"""

from __future__ import annotations

import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx

_LOOK = "/registered-models/search"


class Front:
    """In a thread of this process, in front of the MLflow server at `behind`."""

    def __init__(self, behind: str) -> None:
        self._http = httpx.Client(base_url=behind, timeout=30, headers={"accept-encoding": "identity"})
        self._kept: dict[str, httpx.Response] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def answer(self, path: str) -> httpx.Response:
        """MLflow's answer, or its last one to the same look."""
        kept = self._kept  # whatever is asked before `forget` is not kept behind it
        found = kept.get(path)
        if found is None:
            found = self._http.get(path)
            if _LOOK in path and found.is_success:
                kept[path] = found
        return found

    def forget(self) -> None:
        """After a change: the next look is MLflow's again."""
        self._kept = {}

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._http.close()


def _handler(front: Front) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            try:
                found = front.answer(self.path)
                status, content = found.status_code, found.content
                kind = found.headers.get("content-type", "application/octet-stream")
            except httpx.HTTPError as error:
                status, content, kind = HTTPStatus.BAD_GATEWAY, str(error).encode(), "text/plain"
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: the run's output is for its figures."""

    return Handler
