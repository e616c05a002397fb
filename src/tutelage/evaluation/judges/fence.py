"""Text that a judge reads but must not obey: fenced off, made inert, and looked at for commands.

A fence holds a random word that is drawn for each request after the text was written, so the text
can't close it. Spellings of control tokens are broken, and characters that no person sees are
taken out. `suspicion` only flags: it changes no verdict, and its silence proves nothing.
"""

from __future__ import annotations

import re
import secrets
import unicodedata

from tutelage.inference.chat import neutralise

_BREAK = "\u200b"  # what `neutralise` breaks a token with
_TAGS = "\U000e0000"  # from here on nothing is ever seen
WORD_BYTES = 12  # of randomness in a fence
_SEEN = ("\n", "\t", "\u200d", "\u200c")  # joiners: emoji and several scripts need them
# what common families of models read as one control token, besides <|name|>
_CONTROLS = (
    "<s>", "</s>", "[INST]", "[/INST]", "<<SYS>>", "<</SYS>>", "[SYSTEM_PROMPT]",
    "[/SYSTEM_PROMPT]", "[AVAILABLE_TOOLS]", "[TOOL_CALLS]", "[TOOL_RESULTS]", "<start_of_turn>",
    "<end_of_turn>", "<bos>", "<eos>", "<pad>", "<unk>", "<think>", "</think>", "<tool_call>",
    "</tool_call>",
)  # fmt: skip
_WIDE = re.compile(r"<｜[^\n｜]{1,40}｜>")
_ANSWER = r"(?:answer|response|reply|output|text|summary|one|candidate|submission|assistant)"
_SIGNS = tuple(
    (why, re.compile(pattern, re.I | re.M))
    for why, pattern in (
        (
            "it says to ignore instructions",
            r"\b(?:ignore|disregard|forget|override|vergiss|ignoriere|ignora|ignorez)\b.{0,40}"
            r"\b(?:instruction|prompt|rubric|criteri|previous|above|prior|rules?\b|anweisung"
            r"|instrucci|istruzion)",
        ),
        (
            "it speaks to a judge",
            r"\b(?:dear|hey|hello|attention|note to|to the|message to|instructions? (?:for|to))"
            r"\W+(?:the )?(?:ai |llm )?(?:judge|grader|evaluator|rater|reviewer|assessor)\b",
        ),
        (
            "it says what to give it",
            r"\b(?:rate|score|grade|mark|judge|evaluate|give|assign|award)\b.{0,30}\b(?:this|my|the"
            r"|it)\b.{0,30}(?:\b(?:highest|top|full|maximum|perfect|best) (?:possible )?(?:scores?"
            r"|marks?|ratings?|grades?|levels?|points)\b|\blevel \d"
            r"|\b(?:5|10|100) ?(?:/|out of) ?(?:5|10|100)\b)",
        ),
        (
            "it says which to prefer",
            rf"\b(?:choose|prefer|select|pick|vote for|favou?r)\b.{{0,20}}\b(?:this|my|the (?:first"
            rf"|second)|the (?:above|following))\b.{{0,15}}\b{_ANSWER}\b"
            rf"|\b(?:first|second|this) {_ANSWER} (?:is|must be|should be) (?:the )?"
            r"(?:better|best|winner|preferred)",
        ),
        ("it looks like a verdict", r"[\"'](?:level|better|winner|verdict)[\"']\s*:\s*[\"'\d]"),
        ("it plays another role", r"^\W{0,4}(?:system|developer)\W{0,3}:\s|^#+ ?system\b"),
        ("it looks like a fence", r"<<<|>>>|^-{3,} ?(?:end|begin)\b|\b(?:end|begin) of (?:data|"
         rf"{_ANSWER})\b"),
    )
)  # fmt: skip


def inert(text: str) -> str:
    """Return the text with control tokens broken and invisible characters taken out."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    shown = lines
    if not _all_seen(lines):
        shown = "".join(c for c in lines if c in _SEEN or not _hidden(c))
    shown = _WIDE.sub(lambda m: m[0][0] + _BREAK + m[0][1:], shown)
    return neutralise(shown, _CONTROLS)


def draw(texts: list[str]) -> str:
    """Return a random word that is in none of the texts."""
    while True:
        word = secrets.token_hex(WORD_BYTES)
        if not any(word in text for text in texts):
            return word


def fenced(name: str, text: str, word: str) -> str:
    """Return the text between two lines that carry its name and the random word."""
    return f"<<<{name} {word}\n{inert(text)}\n{name} {word}>>>"


def suspicion(text: str) -> str | None:
    """Return why a text seems to be written for its judge; None if nothing was found."""
    odd = not _all_seen(text)
    if odd and any(_hidden(c) and c not in _SEEN and not _harmless(c) for c in text):
        return "it holds characters that no person sees"
    if _BREAK in inert(text):
        return "it spells control tokens"
    return next((why for why, pattern in _SIGNS if pattern.search(text)), None)


def _all_seen(text: str) -> bool:
    """Whether a text surely holds nothing hidden: the quick answer for nearly all texts."""
    plain = max(text, default="") < _TAGS
    return plain and text.replace("\n", " ").replace("\t", " ").isprintable()


def _hidden(character: str) -> bool:
    """Whether a character is a control, a format sign, a tag, or a selector of rare variants."""
    return character >= _TAGS or unicodedata.category(character) in ("Cc", "Cf", "Co", "Cs")


def _harmless(character: str) -> bool:
    """Whether a hidden character is one that files carry by accident."""
    return character in "\r\f\v\u00ad\ufeff\u200b\u200e\u200f\u2060"
