"""Prose: mojibake and control characters repaired, space tidied. Code blocks and tables stay.

Quotes, ligatures, widths and HTML entities are left: they may carry meaning, and production text
will have them too.
"""

from __future__ import annotations

import re
import unicodedata

import ftfy

_CAREFUL = ftfy.TextFixerConfig(
    uncurl_quotes=False,
    fix_latin_ligatures=False,
    fix_character_width=False,
    unescape_html=False,
    normalization="NFC",
    explain=False,
)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f]")
# What ftfy may change: control characters and odd line breaks, half characters, and two in a row
# of the characters that one-byte code pages have (a UTF-8 character misread is two or more).
_ODD = re.compile(
    r"[\x00-\x08\x0b\x0d-\x1f\x7f-\x9f\u2028\u2029\u206a-\u206f\ufeff\ufff9-\ufffc\ud800-\udfff]"
    r"|[\u00a0-\u02ff\u0384-\u045f\u0490\u0491\u2010-\u25ff\uf8ff\ufb01\ufb02\ufffd]{2}|[ÃÂà] "
)
_TRAILING = re.compile(r"(?<![ \t])[ \t]++(?=\n|\Z)")
_BLANKS = re.compile(r"\n{3,}")
_NARROW = "\u00a0\u2007\u202f"
_SPACES = re.compile(rf"(?<=\S)[ \t{_NARROW}]{{2,}}(?=\S)|[{_NARROW}]")
_LAID_OUT = re.compile(r"^.*\S(?: {3,}|[ ]*\t[ \t]*)\S", re.MULTILINE)  # a row of columns
_FENCED = re.compile(r"(^(?:```|~~~).*?^(?:```|~~~)[ \t]*$)", re.MULTILINE | re.DOTALL)


def repair(text: str) -> str:
    """Return text with mojibake and control characters repaired, line breaks as \\n, in NFC."""
    if text.isascii():
        if not _CONTROL.search(text):
            return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text
    elif not _ODD.search(text) and unicodedata.is_normalized("NFC", text):
        return text
    return str(ftfy.fix_text(text, _CAREFUL))


def tidy_text(text: str) -> str:
    """Return prose with single spaces, no trailing space and at most one blank line.

    Fenced code is left as it is, and so are the spaces of text that is laid out in columns.
    """
    if "\n" not in text and "  " not in text and text.isascii() and text == text.strip():
        return text
    if "```" in text or "~~~" in text:
        parts = _FENCED.split(text)
        return "".join(p if i % 2 else _tidy(p) for i, p in enumerate(parts)).strip()
    return _tidy(text).strip()


def _tidy(text: str) -> str:
    """Return text tidied; what a look shows to need nothing costs no search."""
    if " \n" in text or "\t\n" in text or text[-1:] in (" ", "\t"):
        text = _TRAILING.sub("", text)
    wide = "  " in text or "\t" in text or not text.isascii()
    if wide and ("\n" not in text or len(_LAID_OUT.findall(text)) < 2):
        text = _SPACES.sub(" ", text)
    return _BLANKS.sub("\n\n", text) if "\n\n\n" in text else text
