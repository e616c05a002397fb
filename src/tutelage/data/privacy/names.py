"""Names of people: by cue ("My name is …", "Dr.", "Dear …"), and by common names in sequence.

No model: a cue makes any capitalised word a name, without one a common given name must be there.
Single family names without a cue, and rare names without one, are not found. Names of diseases
(Bell's palsy) and words that only look like names (Will, May, Grace) are left alone.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import cache

from tutelage.data.privacy.kinds import Span
from tutelage.data.privacy.lists import large_places, words

_PART = r"[^\W\d_]+(?:['’][^\W\d_]+)?(?:-[^\W\d_]+)*"
_UPPER = "".join(c for c in map(chr, range(0x41, 0x530)) if c.isupper())  # Latin, Greek, Cyrillic
_CAP = rf"(?=[{_UPPER}]){_PART}"
_LINK = r"(?:van|von|de|del|della|der|den|di|da|dos|du|la|le|bin|ibn|al|el|ter|ten)"
_INITIAL = r"(?:[A-Z]\.?(?![\w'’]))"
_GAP = r"(?:[ \t]+|,[ ]?(?=[A-Z]\.))"
_FULL = rf"{_CAP}(?:{_GAP}(?:{_INITIAL}|(?:{_LINK}[ ])*{_CAP})){{0,4}}"
_WITH_LINK = rf"(?:{_LINK}[ ])*{_FULL}"
_LOWER = rf"{_PART}(?:[ ]{_PART}){{0,3}}"

_RUN = re.compile(rf"(?<![\w@.'’/-])(?:{_INITIAL}[ ])?{_FULL}")
_WORD = re.compile(_PART)
_SENTENCE_END = re.compile(r"(?:^|[.!?:;\n\"“”(\[{•*>|-])[\s\"'“‘(\[*-]*$")

# A title is followed by a name, whatever the name is.
_TITLE = re.compile(
    r"(?<![\w-])(?:(?:Mr|Mrs|Ms|Mx|Dr|Prof|Rev|Sra|Mme|Mlle)\b\.?|(?:Hon|Sgt|Lt|Capt|Cpl|Col|Gen"
    r"|Sr|Hr|Fr)\."
    r"|(?:MR|MRS|MS|DR|PROF)\b\.?|(?i:mister|missus|miss|doctor|professor|nurse|madame"
    r"|monsieur|señora?|senora?|herr|frau|reverend|rabbi|imam|pastor|sergeant|captain|judge)\b)"
    rf"[ \t]+(?P<name>{_WITH_LINK})"
)
# A statement of the name; small letters count too ("my name is priya").
_STATED = re.compile(
    r"\b(?i:(?:my|his|her|their|your|our|the)?[ ]?(?:full|first|last|given|family|maiden|middle"
    r"|patient(?:['’]s)?|customer(?:['’]s)?|client(?:['’]s)?|cardholder(?:['’]s)?"
    r"|account[ ]holder(?:['’]s)?|legal|real|new|old|birth)?[ ]?names?"
    r"(?:['’]s|[ ]+is|[ ]+was|[ ]+are|[ ]?[:=][ ]?|[ ]+to)[ ]+(?:now[ ]|actually[ ])?"
    r"|(?:i[ ]am|i['’]m|he[ ]is|she[ ]is|person|man|woman|boy|girl|child|baby|someone|guy|friend)"
    r"[ ](?:called|named)[ ]|call[ ]me[ ]|(?:people|they|you)[ ](?:can[ ])?call[ ]me[ ])"
    rf"(?:(?i:mr|mrs|ms|miss|dr|doctor)\.?[ ])?(?=(?P<name>{_LOWER}))"
)
_PART_OF_NAME = re.compile(
    r"\b(?i:(?:first|last|family|given|maiden|sur)[ ]?name|(?:named|called)[ ](?:me|him|her|us))"
    rf"[ ](?P<name>{_FULL})"
)
# Words after which a capitalised word is a name if it is a common one.
_NEAR = re.compile(
    r"\b(?i:i[ ]am|i['’]m|this[ ]is|it['’]s|it[ ]is|hi|hello|hey|hiya|thanks|thank[ ]you|cheers"
    r"|regards|sincerely|faithfully|love|best|bye|goodbye|morning|afternoon|evening|signed|cc|attn"
    r"|patient|client|customer|resident|mother|father|mom|mum|dad|wife|husband|son|daughter|brother"
    r"|sister|aunt|uncle|cousin|nephew|niece|grandmother|grandfather|grandma|grandpa|friend|boss"
    r"|colleague|coworker|partner|spouse|fianc[ée]e?|boyfriend|girlfriend|neighbou?r|roommate"
    r"|landlord|tenant|employee|manager|cardholder|beneficiary|recipient|payee|sender|guardian"
    r"|caregiver|surgeon|physician|therapist|psychiatrist|dentist|pediatrician|cardiologist)\b"
    rf"(?:[ ]?[,:-])?[ \t\n]+(?P<name>{_FULL})"
)
# Words after which two capitalised words in a row are a name, common or not.
_TWO = rf"(?P<name>{_CAP}[ ](?:{_INITIAL}[ ])?(?:{_LINK}[ ])*{_CAP})"
_FOR = re.compile(
    r"\b(?i:under|(?:in|by|with|under)[ ]the[ ](?:first[ ]|last[ ]|full[ ])?name(?:[ ]of)?"
    r"|on[ ]behalf[ ]of|(?:reservation|booking|appointment|table|prescription|order|parcel|letter"
    r"|package|surgery|visit|account|booked|made|listed|registered|reserved|filed|held)"
    r"[ ](?:is[ ])?(?:for|by|under|of))"
    rf"[ :]+{_TWO}"
)
_HERE = re.compile(
    rf"{_TWO}(?=[ ](?:here|speaking|is[ ](?:my|the|her|his)[ ](?:full[ ])?name"
    r"|is[ ]what[ ]you[ ]can[ ]call)\b)"
)
_IS = re.compile(rf"\b(?i:this[ ]is|i[ ]am|i['’]m|it['’]s|it[ ]is)[ ]{_TWO}(?![ ][A-Z])")
_DEAR = re.compile(rf"\b(?:Dear|DEAR|dear)[ ]+(?P<name>{_WITH_LINK})")
_SIGNED = re.compile(
    r"(?:^|\n)[ \t]*(?i:(?:kind|best|warm|many)?[ ]?regards|(?:yours[ ])?(?:sincerely|faithfully"
    r"|truly)|yours|best[ ]wishes|many[ ]thanks|thanks|thank[ ]you|cheers|love|signed(?:[ ]by)?)"
    rf"[ ]?[,.:!-]*[ ]*\n+[ \t]*(?P<name>{_FULL})[ \t]*(?=\n|$)"
)
_CREDENTIAL = re.compile(
    rf"(?P<name>{_CAP}(?:[ ](?:{_INITIAL}|{_CAP})){{1,3}}),?[ ]"
    r"(?:M\.?D|R\.?N|D\.?O|N\.?P|P\.?A(?:-C)?|Ph\.?D|D\.?D\.?S|D\.?V\.?M|F\.?A\.?C\.?[PS]"
    r"|Esq|LCSW|MSW)\b\.?"
)
_BY = re.compile(
    r"\b(?i:seen|referred|followed|examined|treated|evaluated|dictated|transcribed|signed|reviewed"
    r"|written|ordered|prescribed|performed|accompanied|born[ ]to)[ ](?i:by|with)[ ]"
    rf"(?P<name>{_CAP}[ ](?:{_INITIAL}[ ])?(?!{_INITIAL}){_CAP})"
)
# Letters that stand for a name that is gone already.
_PLACEHOLDER = re.compile(r"(?:[XYZ]|X ?Y ?Z|A ?B ?C(?: ?D)?|Name|NAME)\.?")
_EPONYM = re.compile(
    r"(?:['’]s?|s['’])?[ -](?i:diseases?|syndromes?|signs?|tests?|lymphomas?|palsy|procedures?"
    r"|reflex"
    r"|scores?|scales?|criteria|tubes?|catheters?|fractures?|reactions?|stains?|phenomenon|ataxia"
    r"|esophagus|thyroiditis|sarcoma|tumou?rs?|chorea|contracture|maneuver|manoeuvre|deformity"
    r"|anemia|anaemia|bodies|cells?|classification|grade|stage|nodes?|ganglion|gland|duct|canal"
    r"|method|law|theorem|equation|theory|model|prize|award|rule|effect|number|constant"
    r"|distribution|university|college|school|hospital|clinic|street|avenue|road|bank|inc|ltd|llc"
    r"|gmbh|corp|company|card|pay|cancer|headache|vein|artery|muscle|operation|repair|incision"
    r"|position|angle|line|point|triangle|space|index|formula|probe|retractor|forceps|needle"
    r"|dressing|bandage|boot|splint|brace|study|trial|protocol|ratio|levine|infections?|paralysis|lines|concordance|type|virus|cysts?|barr[ée])\b"
)
_SAINTS = re.compile(
    r"\b(?:San|Santa|St|Saint|Monte|Fort|Lake|Mount|Mt|Port|King|Queen|Prince|Princess|Pope|Los|Las"
    r"|El|Cape|New|Mother|Charcot|Little|Hurricane|Storm)\.?[ -]$"
)
_INSTITUTIONS = words("words.txt", "institutions")
_NEVER = words("words.txt", "never")
_HINT = re.compile(rf"(?<=.)[{_UPPER}]\w|\bnames?\b|\bcalled\b|\bcall me\b", re.DOTALL)
_PARTICIPLE = re.compile(r"(?:ed|ing|ly|able|ible|tion|ment|ness)$")


@cache
def known() -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
    """Return the common given names, family names, and names that are words too."""
    also_words = words("names.txt", "words")
    return words("names.txt", "given") - also_words, words("names.txt", "family"), also_words


def may_hold_names(text: str) -> bool:
    """Return quickly whether `find_names` can find anything in a text."""
    if _HINT.search(text):
        return True
    first = _WORD.search(text)  # a capital that only begins the text
    return first is not None and first[0][0].isupper() and _bare(first[0]) in known()[0]


def find_names(text: str) -> Iterator[Span]:
    """Yield every name that a cue or a common given name shows."""
    yield from _cued(text, _TITLE, 0.95, "a title stands before it")
    yield from _stated(text)
    yield from _cued(text, _PART_OF_NAME, 0.9, "the text says that it is a name")
    yield from _cued(text, _DEAR, 0.9, "a salutation stands before it")
    yield from _cued(text, _SIGNED, 0.9, "a closing formula stands before it")
    yield from _cued(text, _CREDENTIAL, 0.95, "a degree stands after it")
    yield from _cued(text, _BY, 0.85, "it says who did it")
    if not _is_title(text):
        for pattern in (_FOR, _HERE, _IS):
            yield from _two_words(text, pattern)
    for match in _NEAR.finditer(text):
        name = _trimmed(match["name"])
        if name and _is_common(name):
            yield _span(match, name, 0.85, "the words before it point to a person")
    yield from _listed(text)


def _cued(text: str, pattern: re.Pattern[str], sure: float, why: str) -> Iterator[Span]:
    for match in pattern.finditer(text):
        name = _trimmed(match["name"])
        after = match.start("name") + len(name)
        if (
            name
            and not (pattern is not _TITLE and name.isupper())
            and not _EPONYM.match(text, after)
        ):
            yield _span(match, name, sure, why)


def _two_words(text: str, pattern: re.Pattern[str]) -> Iterator[Span]:
    """Yield two capitalised words where a person is meant, unless they name something else."""
    for match in pattern.finditer(text):
        name = _trimmed(match["name"])
        parts = [_plain(part) for part in name.split(" ")]
        other = any(part in _INSTITUTIONS or part in large_places() for part in parts)
        other = other or name.isupper() or bool(_PARTICIPLE.search(parts[0]))
        if len(parts) > 1 and not other and name.lower() not in large_places():
            yield _span(match, name, 0.75, "the words beside it point to a person")


def _is_title(text: str) -> bool:
    """Return whether most words are capitalised, so that capitals mean nothing."""
    found = _WORD.findall(text[:400])
    return len(found) > 5 and sum(word[0].isupper() for word in found) > 0.6 * len(found)


def _stated(text: str) -> Iterator[Span]:
    for match in _STATED.finditer(text):
        name = _stated_name(match["name"], text[match.end("name") :])
        if name:
            yield _span(match, name, 0.95, "the text says that it is a name")


def _stated_name(said: str, rest: str) -> str:
    """Return the part of `said` that is a name: capitalised words, or common names in any case."""
    given, family, also_words = known()
    taken: list[str] = []
    parts = said.split(" ")
    for part in parts:
        low = _plain(part)
        capital = part[:1].isupper()
        bare = _bare(part)
        listed = bare in given or bare in family or bare in also_words
        if (low in _NEVER and not (listed and capital and taken)) or not (capital or listed):
            break
        taken.append(part)
    if taken:
        found = " ".join(taken)
        return "" if _PLACEHOLDER.fullmatch(found) else found
    # "my name is oluwaseun okonkwo." in small letters: one or two plain words, then the end.
    odd = any(_plain(p) in _NEVER or _PARTICIPLE.search(p) or len(p) < 3 for p in parts)
    if len(parts) <= 2 and not odd and re.match(r"[.,!?\n]|$", rest):
        return said
    return ""


def _trimmed(name: str) -> str:
    """Return the name up to the first word that is none."""
    parts = name.split(" ")
    end = 0
    for index, part in enumerate(parts):
        if _plain(part) in _NEVER or _is_shout(part, parts):
            break
        if part and not _is_link(part):
            end = index + 1
    found = " ".join(parts[:end]).rstrip(",")
    return "" if _PLACEHOLDER.fullmatch(found) else found


def _is_link(part: str) -> bool:
    return part.islower()


def _is_shout(part: str, parts: list[str]) -> bool:
    """Return whether a word is in capitals among words that are not, like an abbreviation."""
    return len(part) > 2 and part.isupper() and not all(p.isupper() for p in parts)


def _plain(part: str) -> str:
    low = part.lower().rstrip(".,").replace("’", "'")
    return low[:-2] if low.endswith("'s") else low


def _bare(part: str) -> str:
    """Return a word as the lists have it: no accents, no apostrophe, the first of a double."""
    low = _plain(part).replace("'", "").split("-")[0]
    if low.isascii():
        return low
    return "".join(c for c in unicodedata.normalize("NFKD", low) if not unicodedata.combining(c))


def _is_common(name: str) -> bool:
    """Return whether a name starts with a common given name, or ends with a common family one."""
    given, family, also_words = known()
    parts = [_bare(part) for part in name.split(" ")]
    if parts[0] in given:
        return True
    return (
        len(parts) > 1
        and parts[-1] in family
        and (parts[0] in also_words or parts[-1] not in also_words)
    )


def _listed(text: str) -> Iterator[Span]:
    """Yield names without a cue: a common given name, best with a second capitalised word."""
    given, family, also_words = known()
    for run in _RUN.finditer(text):
        low = run[0].lower()
        pieces = [(m.start(), m[0]) for m in _WORD.finditer(run[0])]
        index = 0
        while index < len(pieces):
            at, word = pieces[index]
            first = _bare(word)
            double = _plain(word).split("-")
            if (len(double) > 1 and _bare(double[1]) not in given) or (
                first not in given and not (first in also_words and first not in _NEVER)
            ):
                index += 1
                continue
            parts = _following(pieces, index, low)
            sure = _sureness(text, run.start() + at, parts, (given, family, also_words))
            end = parts[-1][0] + len(_own(parts[-1][1]))
            last = run.start() + end
            own = any(_plain(part) in _INSTITUTIONS for _, part in parts)
            before = text[max(0, run.start() + at - 12) : run.start() + at]
            if sure and not own and not _EPONYM.match(text, last) and not _SAINTS.search(before):
                yield Span(
                    run.start() + at, last, "name", sure, "it begins with a common given name"
                )
            index += len(parts)


def _following(pieces: list[tuple[int, str]], index: int, low: str) -> list[tuple[int, str]]:
    """Return the words from `index` on that may belong to one name."""
    parts = [pieces[index]]
    for piece in pieces[index + 1 : index + 5]:
        between = low[parts[-1][0] + len(parts[-1][1]) : piece[0]]
        if "," in between or _plain(piece[1]) in _NEVER or _is_shout(piece[1], [parts[0][1]]):
            break
        parts.append(piece)
    while len(parts) > 1 and parts[-1][1].islower():
        parts.pop()
    return parts


def _own(word: str) -> str:
    return word[:-2] if word.lower().endswith(("'s", "’s")) else word


def _sureness(
    text: str,
    start: int,
    parts: list[tuple[int, str]],
    lists: tuple[frozenset[str], frozenset[str], frozenset[str]],
) -> float:
    given, family, also_words = lists
    names = [_bare(word) for _, word in parts]
    strong = names[0] in given
    second = any(n in family or n in given for n in names[1:])
    firm = any(n not in also_words and (n in family or n in given) for n in names[1:])
    if len(names) > 1 and strong:
        return 0.95 if second else 0.75
    if len(names) > 1:
        return 0.7 if firm else 0.0
    if not strong or len(names[0]) < 3:
        return 0.0
    if _own(parts[0][1]).isupper():
        return 0.0
    opening = bool(_SENTENCE_END.search(text[max(0, start - 24) : start]))
    return 0.55 if opening else 0.65


def _span(match: re.Match[str], name: str, sure: float, why: str) -> Span:
    start = match.start("name")
    own = name[:-2] if name.lower().endswith(("'s", "’s")) else name
    return Span(start, start + len(own), "name", sure, why)
