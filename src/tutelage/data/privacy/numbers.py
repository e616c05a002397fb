"""Numbers that belong to one person or thing: by form, by checksum, and by the words before them.

The words stand in cues.txt. A value found by its cue alone has a digit in it and at least four
characters.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from tutelage.data.privacy import checks
from tutelage.data.privacy.checks import digits_of
from tutelage.data.privacy.kinds import Span
from tutelage.data.privacy.lists import in_order, words

_VALUE = r"(?=[A-Z0-9./ -]{0,20}\d)[A-Z0-9](?:[A-Z0-9]|[-./](?=[A-Z0-9])|[ ](?=\d)){3,33}"
_LINK = (
    r"(?:[ ]?(?:number|numbers|no|nos|nr|num|id|ids|identifier|code|#|№)\b\.?|[ ]?[#№])?"
    r"[ ]?(?:is|was|are|reads|:|=|#|№|-|—|,|\()*[ ]?(?:is|was|now|it['’]s|#|:)?[ ]*[\"'“‘(\[]?[ ]*"
)


def _cue(
    cue: str, kind: str, value: str = _VALUE, *, number: bool = False, of: str = ""
) -> tuple[str, re.Pattern[str]]:
    """Return a kind and the pattern of a cue, a link, and the value as group `v`.

    `number`: the link must hold "number", "id" or the like. `of`: words that may stand between.
    """
    link = _LINK.replace(")?", ")", 1) if number else _LINK
    said = "|".join(in_order("cues.txt", cue))
    return kind, re.compile(
        rf"(?<![A-Za-z0-9])(?:{said}){of}{link}(?P<v>{value})(?!\w)", re.IGNORECASE
    )


_LONG = r"\d(?:[ .-]?\d){4,24}"
_CODE = r"(?=[A-Z0-9-]{0,19}\d)[A-Z0-9](?:[A-Z0-9]|[-./](?=[A-Z0-9])){4,23}"
_TEMPLATE = r"(?:[ ](?:template|hash|scan|record|profile|sample|ref|reference|file|token))?"
# The order is the precedence: what is more specific stands first.
_CUES = (
    _cue("ssn", "ssn", r"\d{3}[ .-]?\d{2}[ .-]?\d{4}|\d{4}"),
    _cue("record", "record"),
    _cue("plan", "plan"),
    _cue("licence", "licence", _CODE),
    _cue("vehicle", "vehicle", r"[A-HJ-NPR-Z0-9]{5,17}"),
    _cue(
        "plate",
        "vehicle",
        r"(?=[A-Z0-9 -]{0,9}\d)(?=[\d -]{0,9}[A-Z])[A-Z0-9]{1,4}(?:[ -]?[A-Z0-9]{1,4}){1,2}",
    ),
    _cue("device", "device", _CODE, number=True),
    _cue("serial", "device", _CODE),
    _cue("biometric", "biometric", _CODE, of=_TEMPLATE),
    _cue("account", "account", _LONG),
    _cue("card", "account", r"\d(?:[ .-]?\d){11,18}"),
    _cue("document", "other", _CODE),
    _cue("reference", "other", _CODE, number=True),
)
_CUE_WORDS = re.compile("|".join(in_order("cues.txt", "hints")), re.IGNORECASE)

_SSN = re.compile(r"(?<![\w.-])(\d{3})-(\d{2})-(\d{4})(?![\w-]|\.\d)")
_CARD = re.compile(r"(?<![\w.,-])\d(?:[ -]?\d){12,18}(?![\w-]|[.,]\d)")
_IBAN = re.compile(
    r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]{4}){2,7}(?:[ -]?[A-Z0-9]{1,4})?(?![A-Za-z0-9])",
    re.IGNORECASE,
)
_VIN = re.compile(r"(?<![A-Za-z0-9])[A-HJ-NPR-Z0-9]{17}(?![A-Za-z0-9])", re.IGNORECASE)
_MBI = re.compile(
    r"(?<![\w-])[1-9][AC-HJKMNP-RT-Y][AC-HJKMNP-RT-Y0-9]\d-?[AC-HJKMNP-RT-Y]"
    r"[AC-HJKMNP-RT-Y0-9]\d-?[AC-HJKMNP-RT-Y]{2}\d{2}(?![\w-])"
)
_MAC = re.compile(
    r"(?<![\w:-])(?:[0-9A-Fa-f]{2}([:-]))(?:[0-9A-Fa-f]{2}\1){4}[0-9A-Fa-f]{2}(?![\w:-])"
)
_UUID = re.compile(r"(?<![\w-])[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}(?![\w-])", re.IGNORECASE)
_NINO = re.compile(
    r"(?<!\w)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z][ ]?\d\d[ ]?\d\d[ ]?\d\d[ ]?[A-D](?!\w)"
)
_CPF = re.compile(r"(?<![\w.])\d{3}\.\d{3}\.\d{3}-\d{2}(?!\w)")
_DEA = re.compile(r"(?<!\w)[ABCDEFGHJKLMPRSTUX][A-Z9]\d{7}(?!\w)")
_WALLET = re.compile(r"(?<!\w)(?:0x[0-9a-fA-F]{40}|bc1[a-z0-9]{25,59})(?!\w)")
_LONG_RUN = re.compile(r"(?<![\w.,$€£-])\d{9,}(?![\w-]|[.,]\d)")
_HEX_RUN = re.compile(r"(?<![\w-])(?=[0-9a-f]*[a-f])(?=[0-9a-f]*\d)[0-9a-f]{24,64}(?![\w-])")
_HANDLE = re.compile(
    r"\b(?:twitter|instagram|insta|tiktok|telegram|snapchat|facebook|skype|discord|linkedin|github"
    r"|user[ ]?name|handle|screen[ ]?name|login)(?:[ ]?(?:account|id|name|handle|is|:|=|at))*[ ]+"
    r"(?P<v>@[\w.]{3,30}|(?=[\w.-]*[\d_.])[A-Za-z][\w.-]{3,29}[A-Za-z0-9])(?!\w)",
    re.IGNORECASE,
)
_GIVEN_ENDING = re.compile(
    r"\b(?:end(?:s|ing)?|last|finish\w*|final)\b[^.\n]{0,24}$|[*x•]{2,}[ -]?$", re.IGNORECASE
)
_LEAD = re.compile(r"(?:mrn|ssn|id|no|nr|vin|npi|dea|iban|rx)[ ]", re.IGNORECASE)
_SMALL_WORDS = words("words.txt", "small")
_ALONE: tuple[tuple[re.Pattern[str], str, float, str, Callable[[str], bool]], ...] = (
    (_IBAN, "account", 0.99, "a valid IBAN", checks.iban),
    (_CARD, "account", 0.97, "a card number that meets Luhn's check",
     lambda text: checks.card(digits_of(text))),
    (_VIN, "vehicle", 0.95, "a vehicle number with the right check digit", checks.vin),
    (_MBI, "plan", 0.9, "it has the form of a Medicare number", bool),
    (_MAC, "device", 0.95, "it has the form of a hardware address", bool),
    (_UUID, "other", 0.95, "it has the form of a UUID", bool),
    (_NINO, "other", 0.85, "it has the form of a national insurance number", bool),
    (_CPF, "other", 0.95, "a tax number with the right check digits",
     lambda text: checks.cpf(digits_of(text))),
    (_DEA, "licence", 0.9, "a DEA number with the right check digit", checks.dea),
    (_WALLET, "account", 0.95, "it has the form of a wallet's address", bool),
    (_LONG_RUN, "other", 0.6, "nine or more digits in a row", bool),
    (_HEX_RUN, "other", 0.7, "a long hexadecimal code", bool),
)  # fmt: skip


def find_numbers(text: str) -> Iterator[Span]:
    """Yield numbers and codes of the kinds ssn to other, by form and by cue."""
    for match in _SSN.finditer(text):
        if checks.ssn(*match.groups()):
            yield Span(*match.span(), "ssn", 0.95, "it has the form of a social security number",
                       digits_of(match[0]))  # fmt: skip
    for pattern, kind, sure, why, holds in _ALONE:
        for match in pattern.finditer(text):
            if holds(match[0]):
                yield Span(*match.span(), kind, sure, why, _same(match[0]))
    for match in _HANDLE.finditer(text):
        yield Span(*match.span("v"), "other", 0.75, "the name of an account stands before it")
    if not _CUE_WORDS.search(text):
        return
    for kind, cue in _CUES:
        for match in cue.finditer(text):
            start, end = match.span("v")
            if lead := _LEAD.match(match["v"]):
                start += lead.end()
            value = text[start:end]
            if _is_value(kind, value) and not _GIVEN_ENDING.search(
                text[max(0, start - 40) : start]
            ):
                yield Span(start, end, kind, 0.9, "the words before it say so", _same(value))


def _is_value(kind: str, value: str) -> bool:
    """Return whether what follows a cue is a number, not a date, an amount or a word."""
    digits = digits_of(value)
    word = re.match(r"([A-Za-z]+) ", value)
    if word and (not word[1].isupper() or word[1].lower() in _SMALL_WORDS):
        return False  # "of 15"
    if kind != "ssn" and re.fullmatch(
        r"(?:19|20)\d\d|\d{1,2}[/.-]\d{1,2}(?:[/.-]\d{2,4})?|\d{1,3}(?:[.,]\d+)?", value
    ):
        return False
    if kind == "ssn":
        return len(digits) in (4, 9)
    if kind == "vehicle":
        return len(value) >= 5
    return len(digits) >= (3 if kind == "other" and not value.isdigit() else 4)


def _same(value: str) -> str:
    return re.sub(r"[\s./-]", "", value).upper()
