"""Ways to reach a person: telephone, fax, e-mail, web address, IP address.

Pattern first, then what stands around it: amounts, dates, codes and version numbers are left.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import IPv6Address

from tutelage.data.privacy.checks import card, digits_of
from tutelage.data.privacy.kinds import Span

_EMAIL = re.compile(
    r"(?<![\w.+-])[^\W_][\w.+'’-]{0,63}@[^\W_][\w-]{0,62}(?:\.[\w-]{1,63}){1,8}(?<![.-])"
)
_SPELLED = re.compile(
    r"(?<![\w.])[\w.+-]{2,64}(?:[ ]?[\[({][ ]?at[ ]?[\])}][ ]?|[ ]at[ ])[\w-]{2,63}"
    r"(?:(?:[ ]?[\[({][ ]?dot[ ]?[\])}][ ]?|[ ]dot[ ])\w{2,24}){1,3}\b",
    re.IGNORECASE,
)
_URL = re.compile(
    r"(?<![\w@])(?:(?:https?|ftps?|sftp|ssh|wss?)://|www\.)[^\s<>\"'“”‘’\[\]{}|\\^`]+",
    re.IGNORECASE,
)
_TOP = (
    r"(?:com|org|net|edu|gov|io|info|biz|me|co|us|uk|de|fr|it|es|nl|eu|ca|au|ch|at|be|se|no|dk"
    r"|pl|pt|br|in|jp|cn|ru|app|dev|ai|health|link|page|site|online|blog)"
)
_BARE_URL = re.compile(
    rf"(?<![\w@./-])(?:[a-z0-9-]{{2,63}}\.){{1,4}}{_TOP}(?:\.[a-z]{{2}})?/[\w~%@:+=&?#./-]+",
    re.IGNORECASE,
)
_IPV4 = re.compile(
    r"(?<![\w.])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)"
    r"(?:/\d{1,2})?(?![\w]|\.\d)"
)
_IPV6 = re.compile(r"(?<![\w:.])(?=[0-9A-Fa-f]*:)[0-9A-Fa-f:]{2,39}(?:%\w+)?(?![\w:])")
_VERSION = re.compile(
    r"(?:version|release|firmware|build|v\.?|section|chapter|EC)[ :]*$", re.IGNORECASE
)

_SEP = r"[ .\-/\u00a0\u2010-\u2013]"
_PLUS = re.compile(
    rf"(?<![\w.])(?:\+|00(?=[1-9]\d[ \d(-]))[ ]?\d{{1,3}}(?:{_SEP}?\(?\d{{1,5}}\)?){{2,7}}(?!\w)"
)
_AMERICAN = re.compile(
    r"(?<![\w.,$€£+-])(?:1[ .-]?)?(?:\([2-9]\d\d\)[ ]?|[2-9]\d\d[ .-])[2-9]\d\d[ .-]\d{4}"
    r"(?:[ ]?(?:x|ext\.?|extension)[ ]?\d{1,6})?(?![\w-]|[.,]\d)",
    re.IGNORECASE,
)
_LOCAL = re.compile(rf"(?<![\w.,$€£+-])\(?0\d{{1,4}}\)?(?:{_SEP}?\d{{2,5}}){{1,4}}(?![\w-]|[.,]\d)")
_LOOSE = re.compile(
    rf"(?<![\w.,$€£])\+?\(?\d{{1,5}}\)?(?:{_SEP}{{0,2}}\(?\d{{1,5}}\)?){{0,6}}(?!\w|[.,]\d)"
)
_CUE = re.compile(
    r"\b(?:call|calls|phone|phones|telephone|tel|mobile|cell|cellphone|landline|text|texts|sms"
    r"|whatsapp|dial|ring|reach|contact|pager|beeper|extension|fax|facsimile|number[ ]is"
    r"|numbers?[ ]are|hotline|voicemail|handy|tél|tlf)\b(?P<gap>[^\d\n]{0,28})$",
    re.IGNORECASE,
)
_CUE_WORD = re.compile(
    r"\b(?:phone|telephone|tel|mobile|cell|cellphone|landline|call|text|whatsapp|pager|fax"
    r"|facsimile|dial|ring)\b",
    re.IGNORECASE,
)
_FAX = re.compile(r"\b(?:fax|facsimile|telefax)\b[^\d\n]{0,28}$", re.IGNORECASE)
_OTHER_NUMBER = re.compile(
    r"\b(?:account|card|order|ref|reference|invoice|ssn|mrn|record|case|policy|licen[cs]e"
    r"|passport|serial|zip|code|pin|iban|member|tracking|ticket)\b[^\d\n]{0,24}$",
    re.IGNORECASE,
)


def find_emails(text: str) -> Iterator[Span]:
    """Yield e-mail addresses, also spelled out ("jo at example dot org")."""
    if "@" in text:
        for match in _EMAIL.finditer(text):
            yield Span(*match.span(), "email", 0.99, "it has the form of an address",
                       match[0].lower())  # fmt: skip
    if " dot " in text.lower() or "dot]" in text.lower() or "dot)" in text.lower():
        for match in _SPELLED.finditer(text):
            yield Span(*match.span(), "email", 0.8, "an address spelled out")


def find_urls(text: str) -> Iterator[Span]:
    """Yield web addresses; punctuation that ends the sentence is not part of one."""
    if "://" in text or "www." in text.lower():
        for match in _URL.finditer(text):
            end = match.start() + len(match[0].rstrip(".,;:!?)*_"))
            if end - match.start() > 6:
                yield Span(match.start(), end, "url", 0.98, "it has the form of a web address")
    if "/" in text and "." in text:
        for match in _BARE_URL.finditer(text):
            end = match.start() + len(match[0].rstrip(".,;:!?"))
            yield Span(match.start(), end, "url", 0.8, "a domain with a path")


def find_ips(text: str) -> Iterator[Span]:
    """Yield IPv4 and IPv6 addresses that are no version numbers."""
    if text.count(".") >= 3:
        for match in _IPV4.finditer(text):
            if not _VERSION.search(text[max(0, match.start() - 12) : match.start()]):
                yield Span(*match.span(), "ip", 0.95, "four numbers below 256")
    if text.count(":") >= 2:
        for match in _IPV6.finditer(text):
            if _is_ipv6(match[0]):
                yield Span(*match.span(), "ip", 0.95, "a valid IPv6 address")


def _is_ipv6(text: str) -> bool:
    plain = text.split("%")[0]
    if len(plain) < 4 or (plain.count(":") < 7 and "::" not in plain):
        return False
    try:
        IPv6Address(plain)
    except ValueError:
        return False
    return True


def find_phones(text: str) -> Iterator[Span]:
    """Yield telephone and fax numbers; which of the two, the word before it says."""
    for pattern, sure, why in (
        (_PLUS, 0.9, "a country code begins it"),
        (_AMERICAN, 0.85, "it has the form of a North American number"),
        (_LOCAL, 0.7, "it begins with an area code"),
    ):
        for match in pattern.finditer(text):
            yield from _phone(text, match, sure, why, (9 if pattern is _LOCAL else 8, 15))
    if not _CUE_WORD.search(text):
        return
    for match in _LOOSE.finditer(text):
        cue = _CUE.search(text[max(0, match.start() - 48) : match.start()])
        if cue:
            yield from _phone(text, match, 0.75, "the word before it says so", (7, 15))


def _phone(
    text: str, match: re.Match[str], sure: float, why: str, sizes: tuple[int, int]
) -> Iterator[Span]:
    digits = digits_of(match[0])
    before = text[max(0, match.start() - 40) : match.start()]
    if not sizes[0] <= len(digits) <= sizes[1] or card(digits):
        return
    if _OTHER_NUMBER.search(before) and not match[0].startswith("+"):
        return
    kind = "fax" if _FAX.search(before) else "phone"
    end = match.start() + len(match[0].rstrip(" .-/"))
    yield Span(match.start(), end, kind, sure, why, digits)
