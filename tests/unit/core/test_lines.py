"""Only a line feed ends a line of JSON Lines."""

from __future__ import annotations

import json

from tutelage.core.lines import lines_of


def test_letters_that_look_like_line_ends_end_no_line() -> None:
    """Nor does a carriage return before the feed stay, nor a last line without an end go."""
    row = json.dumps({"text": "a\u2028b\x85c\u2029d"}, ensure_ascii=False)
    assert lines_of(f"{row}\r\n{row}\n") == [row, row]
    assert lines_of(f"{row}\n\n{row}") == [row, "", row]
    assert lines_of("") == []
