"""Photographs that a row points to, and mentions of them with a file or an attachment.

Whether a picture shows a face can't be seen from text: every image reference counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tutelage.data.privacy.kinds import Span

_ENDINGS = r"(?:jpe?g|png|gif|bmp|tiff?|webp|heic|heif|dcm|dicom|raw|cr2|nef|arw|svg)"
_FILE = re.compile(rf"(?<![\w@])[\w%~+./\\:-]{{0,300}}[\w)-]\.{_ENDINGS}(?![\w-])", re.IGNORECASE)
_DATA = re.compile(r"data:image/[\w.+-]+(?:;[\w=.-]+)*,[A-Za-z0-9+/=%_-]*", re.IGNORECASE)
_MARKDOWN = re.compile(r"!\[[^\]\n]{0,200}\]\([^)\s]{1,2000}\)")
_TAG = re.compile(r"<img\b[^>]{0,2000}>", re.IGNORECASE)
_ATTACHED = re.compile(
    r"\[(?:image|photo|picture|selfie|attachment)(?:[ :#-][^\]\n]{0,80})?\]"
    r"|<(?:image|photo|picture|attachment)(?:[ :#-][^>\n]{0,80})?>",
    re.IGNORECASE,
)
_NAMED = re.compile(
    r"\b(?:photo(?:graph)?s?|picture|image|selfie|headshot|mugshot|portrait|x-?ray|scan)[ ]?"
    r"(?:id|no\.?|number|#|file|ref(?:erence)?)[ :#]*(?P<v>(?=[\w-]*\d)[\w-]{4,40})(?!\w)",
    re.IGNORECASE,
)


def find_photos(text: str) -> Iterator[Span]:
    """Yield references to images: files, data URLs, markup, numbered photographs."""
    if "." in text:
        for match in _FILE.finditer(text):
            yield Span(*match.span(), "photo", 0.9, "it has the name of an image file")
    if "data:image" in text.lower():
        for match in _DATA.finditer(text):
            yield Span(*match.span(), "photo", 0.99, "an image is inside the text")
    if "![" in text:
        for match in _MARKDOWN.finditer(text):
            yield Span(*match.span(), "photo", 0.95, "markup that shows an image")
    if "<" in text or "[" in text:
        for pattern in (_TAG, _ATTACHED):
            for match in pattern.finditer(text):
                yield Span(*match.span(), "photo", 0.9, "markup that shows an image")
    for match in _NAMED.finditer(text):
        yield Span(*match.span("v"), "photo", 0.8, "the number of a photograph")
