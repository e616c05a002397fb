"""Whether a text reads like another language than the one wanted; None when unsure.

With py3langid installed (97 languages and more, naive Bayes over byte n-grams; Lui and Baldwin,
"langid.py", ACL 2012) its answer counts from a probability of 0.8 on. Without it a text is judged
by its script and its most common words. Meant to flag rows, never to decide about them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import Any

_WORD = re.compile(r"[^\W\d_]+")
_MINIMUM_WORDS = 8  # of a text that is judged by its common words
_MINIMUM_LETTERS = 20  # of a text that is judged by the model
_JUDGED = 400  # characters of a text that are looked at
_SURE = 0.8  # probability from which on the model's answer counts
_RELATED = {"nb": "no", "nn": "no", "hr": "sr", "bs": "sr", "cnr": "sr", "ms": "id", "pcm": "en",
            "sco": "en", "yue": "zh", "arz": "ar"}  # fmt: skip
_SCRIPTS = (
    ("ja", re.compile(r"[\u3040-\u30ff]"), {"ja"}),
    ("ko", re.compile(r"[\uac00-\ud7af]"), {"ko"}),
    ("zh", re.compile(r"[\u4e00-\u9fff]"), {"zh", "ja"}),
    ("ru", re.compile(r"[\u0400-\u04ff]"),
     {"ru", "uk", "be", "bg", "mk", "sr", "kk", "ky", "mn", "tg", "tt"}),
    ("ar", re.compile(r"[\u0600-\u06ff]"), {"ar", "fa", "ur", "ps", "ku", "ug", "sd"}),
    ("he", re.compile(r"[\u0590-\u05ff]"), {"he", "yi"}),
    ("hi", re.compile(r"[\u0900-\u097f]"), {"hi", "mr", "ne", "sa"}),
    ("el", re.compile(r"[\u0370-\u03ff]"), {"el"}),
    ("th", re.compile(r"[\u0e00-\u0e7f]"), {"th"}),
)  # fmt: skip
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

Guess = Callable[[str], str | None]


def other_language(text: str, wanted: str, guess: Guess | None = None) -> str | None:
    """Return the language a text reads like if it is not `wanted`, else None.

    `wanted` is an ISO 639-1 code, with or without a region. `guess` replaces the detector.
    """
    own = _base(wanted)
    text = text[:_JUDGED]
    if not text.isascii():
        script = _by_script(text)
        if script is not None:
            language, users = script
            return None if own in users else language
    if own in _COMMON and guess_by_words(text) == own:
        return None
    found = (guess or detector())(text)
    return found if found is not None and _base(found) != own else None


@cache
def detector() -> Guess:
    """Return the best detector that is installed."""
    return _model_guess if _model() is not None else guess_by_words


@cache
def _model() -> Any:
    """Return py3langid's identifier with probabilities, or None where it is not installed."""
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier

        return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    except (ImportError, AttributeError, OSError):
        return None


def _model_guess(text: str) -> str | None:
    if len(text) < _MINIMUM_LETTERS or sum(map(str.isalpha, text)) < _MINIMUM_LETTERS:
        return None
    language, probability = _model().classify(text)
    return str(language) if probability >= _SURE else None


def guess_by_words(text: str) -> str | None:
    """Return the ISO 639-1 code whose common words fill the text, or None if none stands out."""
    words = [word.lower() for word in _WORD.findall(text)]
    if len(words) < _MINIMUM_WORDS:
        return None
    votes = Counter(language for word in words for language in _WORDS.get(word, ()))
    (best, count), (_, second) = [*votes.most_common(2), ("", 0), ("", 0)][:2]
    if count >= 3 and count >= 0.12 * len(words) and count >= 1.5 * second:
        return best
    return None


def _by_script(text: str) -> tuple[str, set[str]] | None:
    """Return the script's foremost language and all that are written in it."""
    letters = sum(map(str.isalpha, text))
    for language, script, users in _SCRIPTS:
        if letters >= 4 and len(script.findall(text)) > 0.3 * letters:
            return language, users
    return None


def _base(code: str) -> str:
    short = re.split(r"[-_]", code.strip().lower())[0]
    return _RELATED.get(short, short)
