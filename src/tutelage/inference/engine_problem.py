"""The one error of a request: it becomes OpenAI's error body instead of an answer."""

from __future__ import annotations

from typing import Any


class RequestProblem(Exception):
    """A request that gets OpenAI's error body instead of an answer."""

    def __init__(self, message: str, *, status: int = 400, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code

    def body(self) -> dict[str, Any]:
        """Return the error in OpenAI's shape."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        error = {"message": str(self), "type": kind, "param": None, "code": self.code}
        return {"error": error}
