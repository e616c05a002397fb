"""Everything that can go wrong and be said to a person.

    TutelageError                 one sentence: what, where, what to do; no traceback unless -v
    ├── ConfigError               tutelage.yaml is wrong (all problems at once)
    ├── DataError                 the user's rows can't be used
    ├── ModelError                a model or adapter can't be read or doesn't fit
    ├── EnvironmentProblem        disk, port, missing package, missing permission
    ├── PlanRefused               the planner advises against training (exit 1: the answer is no)
    ├── ReleaseRefused            the evidence does not carry a release (exit 1, or 3: too little)
    └── Conflict                  somebody else holds the thing (a rollout, a job); try again

It does not print: the CLI does, and maps `exit_code` to the process's exit status.
"""

from __future__ import annotations

from collections.abc import Iterable

EXIT_DONE = 0
EXIT_NO = 1
EXIT_USER = 2
EXIT_NOT_ENOUGH_EVIDENCE = 3
EXIT_INTERRUPTED = 130


class TutelageError(Exception):
    """A problem the user can act on.

    `what` is the sentence, `where` a file, line or id, `fix` the next thing to do.
    """

    exit_code = EXIT_USER

    def __init__(self, what: str, *, where: str | None = None, fix: str | None = None) -> None:
        self.what = what.rstrip(".")
        self.where = where
        self.fix = fix.rstrip(".") if fix else None
        super().__init__(self.sentence())

    def sentence(self) -> str:
        """Return the whole message on one line: `where: what. fix.`"""
        head = f"{self.where}: {self.what}." if self.where else f"{self.what}."
        return f"{head} {self.fix}." if self.fix else head

    def at(self, place: str, sources: str) -> None:
        """Put `place` before where it is; the remedy names `sources` in place of data.sources."""
        self.where = f"{place}: {self.where}" if self.where else place
        self.fix = self.fix.replace("data.sources", sources) if self.fix else None

    def as_dict(self) -> dict[str, str | None]:
        """Return the error for `--json` and for HTTP bodies."""
        return {
            "error": type(self).__name__,
            "what": self.what,
            "where": self.where,
            "fix": self.fix,
        }


class ConfigError(TutelageError):
    """tutelage.yaml can't be used as it stands."""


class DataError(TutelageError):
    """The rows can't be used as they stand."""


class NotFound(DataError):
    """Nothing has the name or id that was given."""


class ModelError(TutelageError):
    """A model or adapter can't be read, or doesn't fit."""


class EnvironmentProblem(TutelageError):
    """The machine lacks something: disk, a port, a package, a permission."""


class PlanRefused(TutelageError):
    """The planner advises against training; the reason and the alternative are in the message."""

    exit_code = EXIT_NO


class ReleaseRefused(TutelageError):
    """The evaluation does not carry a release. `enough` is False if it only shows too little."""

    exit_code = EXIT_NO

    def __init__(self, what: str, *, enough: bool = True, fix: str | None = None) -> None:
        super().__init__(what, fix=fix)
        if not enough:
            self.exit_code = EXIT_NOT_ENOUGH_EVIDENCE


class Conflict(TutelageError):
    """Another process holds what this command wants to change."""


def nearest(word: str, known: list[str], *, cutoff: float = 0.6) -> str | None:
    """Return the known word closest to `word`, or None if none is close."""
    import difflib

    found = difflib.get_close_matches(word, known, n=1, cutoff=cutoff)
    return found[0] if found else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return "Did you mean 'x'? " for the known word closest to `word`; empty if none is close."""
    near = nearest(word, list(known))
    return f"Did you mean {near!r}? " if near else ""
