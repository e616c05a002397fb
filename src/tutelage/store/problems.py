"""What a store that refuses says to a person: a full disk, a lost server, no right to write."""

from __future__ import annotations

from sqlalchemy.exc import InterfaceError, OperationalError

from tutelage.core.errors import EnvironmentProblem


def problem_of(error: BaseException) -> EnvironmentProblem | None:
    """Return the sentence for a store that can't be used now; None for every other error."""
    if not isinstance(error, (OperationalError, InterfaceError)):
        return None
    reason = (str(error.orig).splitlines() or ["no reason given"])[0]
    if reason.startswith("no such "):  # a table or column of SQLite's: the program is at fault
        return None
    return EnvironmentProblem(
        f"the store can't be used now ({reason})",
        fix="Check its free disk space and permissions, or that its server runs; then try again",
    )
