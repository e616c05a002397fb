"""Retry-After in both of its forms, and what is none."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tutelage.core.retry_after import retry_after_s

NOW = datetime(2026, 10, 21, 7, 28, tzinfo=UTC)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120.0), (" 7 ", 7.0), ("0.5", 0.5), ("99999", 3600.0), ("inf", 3600.0),
        (None, None), ("", None), ("²", None), ("soon", None), ("-5", None), ("nan", None),
        ("Wed, 21 Oct 2026 07:30:00 GMT", 120.0), ("Wed, 21 Oct 2026 09:30:00 +0200", 120.0),
        ("Wed, 21 Oct 2026 07:30:00 -0000", 120.0), ("Wed, 21 Oct 2026 07:00:00 GMT", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 3600.0), ("Wed, 99 Oct 2026 07:30:00 GMT", None),
    ],
)  # fmt: skip
def test_both_forms_are_understood(header: str | None, seconds: float | None) -> None:
    assert retry_after_s(header, longest_s=3600.0, now=NOW) == seconds
