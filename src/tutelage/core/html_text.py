"""Text made safe to stand in an HTML page. It knows no page and no layout."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

# Code points that HTML documents may not hold (https://html.spec.whatwg.org/#preprocessing-the-
# input-stream): controls, lone surrogates, noncharacters.
_FORBIDDEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef]|[^\x00-\uffff]|[\ufffe\uffff]"
)


class Html(str):
    """Text that is markup already: `esc` leaves it as it is."""

    __slots__ = ()


def esc(text: object) -> Html:
    """Return `text` safe to stand in HTML; Html passes through.

    Characters that no HTML document may hold are shown as pictures: ␛ for escape, � for the rest.
    """
    if isinstance(text, Html):
        return text
    return Html(html.escape(_FORBIDDEN.sub(_picture, str(text)), quote=True))


def _picture(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code > 0xFFFF and code & 0xFFFE != 0xFFFE:
        return found[0]  # an emoji, say
    return chr(0x2400 + code) if code < 0x20 else "\ufffd"


def join(parts: Iterable[object]) -> Html:
    """Return the parts escaped and put together."""
    return Html("".join(esc(part) for part in parts))
