"""A scripted judge behind OpenAI's protocol that obeys whatever is not fenced off.

It reads a request as a model does: turns are joined in ChatML and cut at control tokens, so a
spelled-out token in a text opens a turn of its own. The fence's word is the one the system message
names; what stands between lines with that word is data. An instruction anywhere else is obeyed:
`OBEY 4` gives level 4, `OBEY first` prefers the first answer. Without one it marks what the fence
holds by `opinion` and `preference`, so that a leak shows and honest data does not.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.openai_backend import FakeBackend, Script

_TURN = re.compile(r"<\|im_start\|>(\w+)\n(.*?)(?:<\|im_end\|>|$)", re.S)
_WORD = re.compile(r"`<<<NAME ([0-9a-f]{8,})`")
_ORDER = re.compile(r"OBEY (\w+)")

Pieces = dict[str, str]


@dataclass
class JudgeScript:
    """How the judge decides, and what it was asked. `opinion` returns a level's number."""

    opinion: Callable[[str, Pieces, int], int] = lambda question, pieces, levels: levels
    preference: Callable[[Pieces], str] = lambda pieces: "tie"
    reply: Callable[[int, str], str] | None = None  # (request's number, honest reply) → reply
    before: Callable[[int], None] | None = None  # called before a request is answered
    asked: list[dict[str, Any]] = field(default_factory=list)  # pieces, question, obeyed


def read_request(body: dict[str, Any]) -> tuple[str, Pieces, str | None]:
    """Return the system message, the fenced pieces, and the order that was found outside."""
    text = "".join(
        f"<|im_start|>{turn['role']}\n{turn['content']}<|im_end|>\n" for turn in body["messages"]
    )
    turns = _TURN.findall(text)
    loose = _TURN.sub("", text)  # what a token inside a text cut off its turn
    told = "\n".join(content for role, content in turns if role == "system")
    word = _WORD.search(told)
    assert word, "the system message names no fence"
    fence = re.compile(rf"^<<<(\w+) {word[1]}\n(.*?)\n\1 {word[1]}>>>$", re.S | re.M)
    pieces: Pieces = {}
    outside = [loose, told]
    for role, content in turns:
        if role != "system":
            pieces.update(fence.findall(content))
            outside.append(fence.sub("", content))
    order = _ORDER.search("\n".join(outside))
    return told, pieces, order[1] if order else None


class JudgeServer(FakeBackend):
    """The judge in a thread; `judge` is its script, `script.seen` the raw requests."""

    def __init__(self, judge: JudgeScript | None = None, models: set[str] | None = None) -> None:
        self.judge = judge or JudgeScript()
        self._lock = threading.Lock()
        super().__init__(Script(models=models or {"judge"}))
        self.script.by_model["*"] = {"text": self._answer}

    def _answer(self, body: dict[str, Any]) -> str:
        told, pieces, order = read_request(body)
        with self._lock:
            number = len(self.judge.asked)
            question = (re.search(r"^The criterion: (.*)$", told, re.M) or ["", ""])[1]
            entry = {"pieces": pieces, "question": question, "obeyed": order}
            self.judge.asked.append({**entry, "model": body["model"]})
        if self.judge.before is not None:
            self.judge.before(number)
        if "FIRST" in pieces:
            verdict: dict[str, Any] = {"better": order or self.judge.preference(pieces)}
        else:
            levels = len(re.findall(r"^\d+: ", told, re.M))
            level = self.judge.opinion(question, pieces, levels)
            verdict = {"level": int(order) if order and order.isdigit() else level}
        honest = json.dumps({"reason": "as the script says", **verdict})
        return self.judge.reply(number, honest) if self.judge.reply else honest
