"""Whether an answer refuses or disclaims: "I'm sorry, but I can't …", "I don't know …".

The phrasings are data (refusals.yaml). Only the first sentences are read, and only what stands at
the start of one counts: a patient who "can't sleep" in the middle of a note refuses nothing.
"""

from __future__ import annotations

import re
from functools import cache, lru_cache
from importlib.resources import files

import yaml

_READ = 400  # characters of an answer that are looked at
_SENTENCES = 3
_QUOTES = str.maketrans({"’": "'", "‘": "'", "ʼ": "'", "`": "'", "´": "'", "“": '"', "”": '"'})
_EDGE = re.compile(r"^[\W_]+")
_SPACE = re.compile(r"\s+")
_SENTENCE = re.compile(r"(?<=[.!?。！？])\s*(?=\S)|[\r\n]+")


@lru_cache(maxsize=65536)
def is_refusal(answer: str) -> bool:
    """Return whether an answer refuses, disclaims, or says that it does not know."""
    text = answer[:_READ].translate(_QUOTES).lower()
    opening, core, other = _patterns()
    for sentence in _SENTENCE.split(text)[:_SENTENCES]:
        sentence = _SPACE.sub(" ", _EDGE.sub("", sentence)).strip()
        start = opening.match(sentence)
        rest = sentence[start.end() :] if start else sentence
        if core.match(rest) or core.match(sentence) or other.match(sentence):
            return True
        if start and not rest.strip(" ,.;:!-—") and len(text) <= len("i'm sorry") + 12:
            return bool(re.search(r"sorry|apologi", sentence))
    return False


@cache
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    """Return what may stand before a refusal, the refusals, and those of other languages."""
    text = files("tutelage.data.filters").joinpath("refusals.yaml").read_text(encoding="utf-8")
    table = yaml.safe_load(text)
    parts = {name: _flat(part) for name, part in table["parts"].items()}
    between = r"[\s,.;:!—–-]*"
    opening = f"(?:(?:{'|'.join(_filled(o, parts) for o in table['openings'])}){between})+"
    core = "|".join(_filled(c, parts) for c in table["cores"])
    other = "|".join(table["others"])
    apology = table["apologies"]
    return (
        re.compile(opening),
        re.compile(f"(?:{core})"),
        re.compile(f"(?:(?:{apology}){between})*(?:{other})"),
    )


def _flat(part: str) -> str:
    """Return a folded YAML text as one expression: its line breaks are not part of it."""
    return re.sub(r"\s*\n\s*| (?=\|)", "", part.strip())


def _filled(pattern: str, parts: dict[str, str]) -> str:
    for _ in range(2):
        pattern = re.sub(r"<(\w+)>", lambda found: parts[found[1]], pattern)
    return pattern
