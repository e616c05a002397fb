"""A scripted `/v1/embeddings` server in a thread: a vector a text, or whatever goes wrong.

The vector of a text counts its letters a to h, so that equal texts have equal vectors.
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class EmbeddingBackend:
    """The server. `fail_times` requests get status 503 first; `answer` replaces the body."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []
        self.fail_times = 0
        self.answer: Any = None
        backend = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                backend.seen.append({"path": self.path, **body})
                status, reply = backend.reply(body)
                payload = json.dumps(reply).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            def log_message(self, *arguments: Any) -> None:
                """Stay silent."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), daemon=True
        )

    def reply(self, body: dict[str, Any]) -> tuple[int, Any]:
        """Return the status and body of one request."""
        if body["model"] != "letters":
            return 404, {"error": {"message": f"the model {body['model']} does not exist"}}
        if self.fail_times:
            self.fail_times -= 1
            return 503, {"error": {"message": "busy"}}
        if self.answer is not None:
            return 200, self.answer
        rows = [
            {"index": i, "embedding": [float(text.lower().count(c)) for c in "abcdefgh"]}
            for i, text in enumerate(body["input"])
        ]
        return 200, {"data": rows[::-1], "model": "letters"}

    def __enter__(self) -> EmbeddingBackend:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)
