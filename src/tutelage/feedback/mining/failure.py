"""Whether one record shows by itself that its answer failed: its status, its checks, its form.

What users said of it is not looked at here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from tutelage.core.output import OutputFormat

HELD_BACK = 422  # a guard withheld the answer
_DOUBTED, _BROKEN, _SERVER, _LEFT = 0.5, 1.0, 0.3, 0.2
_KEPT = 50_000  # different answers whose form is remembered
_CLIENT_LEFT = 499

Failed = tuple[float, str]


def failure_of(row: Any, problem: Callable[[str], str | None]) -> Failed:
    """Return how far a record shows a failure, 0 to 1, and the words for it ("" for none).

    `row` has status, finish_reason, checks and response; `problem` says what is wrong with the
    form of an answer.
    """
    if row.status == 200 and row.finish_reason == "stop" and not row.checks:
        what = _form(row.response, problem)  # nearly every record, so no list is made
        return (_BROKEN, what) if what else (0.0, "")
    return max(_failures(row, problem), default=(0.0, ""))


def _form(response: str, problem: Callable[[str], str | None]) -> str:
    what = problem(response) if response.strip() else "it is empty"
    return f"the answer can't be used: {what}" if what else ""


def _failures(row: Any, problem: Callable[[str], str | None]) -> Iterator[Failed]:
    status = row.status
    if status >= 400:
        if status == HELD_BACK:
            yield _BROKEN, "a check held the answer back"
        elif status == _CLIENT_LEFT:
            yield _LEFT, "the client left before the answer was whole"
        else:
            yield _SERVER, f"the request ended with {status}"
    elif row.finish_reason == "length":
        yield _DOUBTED, "the answer was cut off at its longest"
    for name, check in (row.checks or {}).items():
        if isinstance(check, dict) and check.get("ok") is False:
            why = str(check.get("why", ""))
            yield _DOUBTED, f"the check {name!r} flagged it" + (f": {why}" if why else "")
    if status == 200:
        what = _form(row.response, problem)
        if what:
            yield _BROKEN, what


class Forms:
    """What is wrong with an answer's form, remembered, and the label it gives.

    `code` numbers answers so that equal ones have equal numbers: labels where the project's
    answers are labels, else a hash of the text.
    """

    def __init__(self, output: OutputFormat, *, labelled: bool) -> None:
        self._output, self._labelled = output, labelled
        self._known: dict[str, tuple[str | None, str | None]] = {}

    def problem(self, answer: str) -> str | None:
        """Return what is wrong with the form of an answer, or None."""
        return self._read(answer)[1] if self._labelled or self._output.field else None

    def label(self, answer: str) -> str | None:
        """Return the label that an answer gives, or None."""
        return self._read(answer)[0] if self._labelled else None

    def same_as(self, answer: str) -> str:
        """Return what answers are compared by: the label, or the text in small letters."""
        label = self.label(answer)
        return label if label is not None else " ".join(answer.lower().split())

    def _read(self, answer: str) -> tuple[str | None, str | None]:
        found = self._known.get(answer)
        if found is None:
            parsed = self._output.parse(answer)
            found = parsed.label, parsed.problem
            if len(self._known) < _KEPT and len(answer) < 1000:
                self._known[answer] = found
        return found
