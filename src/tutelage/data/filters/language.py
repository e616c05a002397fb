"""A guess at a text's language by its script and its most common words; None when unsure.

It knows the languages listed here and is meant to flag rows, never to decide about them.
"""

from __future__ import annotations

import re
from collections import Counter

_WORD = re.compile(r"[^\W\d_]+")
_MINIMUM_WORDS = 8
_SCRIPTS = (
    ("ja", re.compile(r"[\u3040-\u30ff]")),
    ("ko", re.compile(r"[\uac00-\ud7af]")),
    ("zh", re.compile(r"[\u4e00-\u9fff]")),
    ("ru", re.compile(r"[\u0400-\u04ff]")),
    ("ar", re.compile(r"[\u0600-\u06ff]")),
    ("he", re.compile(r"[\u0590-\u05ff]")),
    ("hi", re.compile(r"[\u0900-\u097f]")),
    ("el", re.compile(r"[\u0370-\u03ff]")),
    ("th", re.compile(r"[\u0e00-\u0e7f]")),
)
_COMMON = {
    "en": "the of and to in is that it was for on are with as be this have from or by not at",
    "de": "der die das und ist nicht ein eine zu den mit von auf für im dem sich auch es wird",
    "fr": "le la les des et est une dans que pour qui pas sur avec au par du je il vous",
    "es": "el los las una que del por con para como más pero sus su al lo es se en y",
    "it": "il che di è un per non con una sono del della gli le nel alla ha si come più",
    "pt": "o os uma que não para com do da em dos das por mais como foi ao são você se",
    "nl": "de het een van en dat niet te zijn voor met op aan ook wordt die er maar om bij",
    "pl": "nie się że na jest do jak ale tak przez dla co po być był od są to za",
    "sv": "och att det som en på är av för med den inte har till ett om var jag de så",
}
_WORDS: dict[str, set[str]] = {}
for _language, _words in _COMMON.items():
    for _word in _words.split():
        _WORDS.setdefault(_word, set()).add(_language)


def guess_language(text: str) -> str | None:
    """Return an ISO 639-1 code, or None for short, mixed or unknown text."""
    letters = sum(character.isalpha() for character in text)
    for language, script in _SCRIPTS:
        if letters >= 4 and len(script.findall(text)) > 0.3 * letters:
            return language
    words = [word.lower() for word in _WORD.findall(text)]
    if len(words) < _MINIMUM_WORDS:
        return None
    votes: Counter[str] = Counter()
    for word in words:
        for language in _WORDS.get(word, ()):
            votes[language] += 1
    (best, count), *rest = [*votes.most_common(2), ("", 0)][:2]
    second = rest[0][1]
    if count >= 3 and count >= 0.12 * len(words) and count >= 1.5 * second:
        return best
    return None
