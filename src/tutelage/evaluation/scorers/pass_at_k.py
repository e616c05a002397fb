"""pass@k: the chance that one of k answers passes the row's tests, run in the sandbox.

The estimator is unbiased (Chen et al. 2021, equation 1). The tests are a field of the row, so
the model never sees them.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import numpy as np
from pydantic import Field

from tutelage.core.config_base import Section
from tutelage.core.events import Event
from tutelage.core.example import Example
from tutelage.evaluation.rows import RowResult
from tutelage.evaluation.sandbox.limits import MEGABYTE, Limits, Result
from tutelage.evaluation.sandbox.run import protection, run_code
from tutelage.evaluation.scorers.base import HERE, Place, Score

_FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})[^\n`]*\n(.*?)^[ \t]*\1[ \t]*$", re.DOTALL | re.MULTILINE)
_STAGE = "evaluate"
_SHOWN = (1, 5, 10, 25, 50, 100)  # k of the summary, as far as enough answers were drawn


class PassAtKOptions(Section):
    """How answers are run, and where a row keeps its tests."""

    k: int = Field(default=1, ge=1)  # more than 1 needs evaluate.samples of at least k
    tests: str = "test"  # the row's field with code that fails if the answer is wrong
    entry_point: str = "entry_point"  # the row's field with the name of the function; may be absent
    # whether the question's code stands before the answer; auto: where the answer goes on from it
    continues: Literal["auto", "always", "never"] = "auto"
    seconds: float = Field(default=10, gt=0)  # wall clock a run
    memory: int = Field(default=1024, ge=64)  # megabytes a process
    processes: int = Field(default=1, ge=1)  # 1: the program can start no other
    packages: bool = False  # it may import what is installed beside tutelage
    unconfined: bool = False  # run it even where the network or files can't be shut off


class PassAtK:
    """Chance that at least one of k answers passes the row's tests, run in a sandbox, 0..1."""

    Options = PassAtKOptions

    def __init__(self, options: PassAtKOptions, place: Place = HERE) -> None:
        """Check the sandbox. Raises SandboxError where code can't be run safely."""
        if options.k > max(1, place.samples):
            raise place.wrong(
                f"pass_at_k: k is {options.k} and evaluate.samples is {place.samples}",
                f"Set evaluate.samples to at least {options.k}",
            )
        held = protection()
        if not (held.network_closed and held.files_closed) and not options.unconfined:
            raise place.wrong(
                f"pass_at_k: the sandbox is too weak on this machine ({held.sentence()})",
                "Install bubblewrap, or set unconfined: true for this scorer",
            )
        self._options = options
        self._limits = Limits(
            options.seconds, options.memory * MEGABYTE, processes=options.processes
        )
        self._emit = place.emit
        self._ran: dict[tuple[str, str], Result] = {}

    def prepare(self, pairs: Sequence[tuple[Example, RowResult]]) -> None:
        """Run every program of a candidate, as many at once as there are cores."""
        todo = {
            (row.id, text): row
            for row, answer in pairs
            if self._tests(row)
            for text in _texts(answer)
            if (row.id, text) not in self._ran
        }
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            found = pool.map(lambda job: self._run(job[1], job[0][1]), todo.items())
            for done, (key, result) in enumerate(zip(todo, found, strict=True), start=1):
                self._ran[key] = result
                self._emit(Event(_STAGE, "progress", "running code", done, len(todo)))

    def score_answer(self, row: Example, answer: RowResult) -> Score:
        """Score the answers drawn for the row, or the written one where none were drawn."""
        return self._judge(row, _texts(answer))

    def score(self, row: Example, text: str) -> Score:
        """Score one answer: 1 if it passes, else 0 (for k of 1)."""
        return self._judge(row, [text])

    def summary(self, scores: Mapping[str, Score]) -> dict[str, float]:
        """Return pass@k for every usual k that there are answers for."""
        kept = [s.evidence for s in scores.values() if s.value is not None]
        least = min((e["answers"] for e in kept), default=0)
        return {
            f"pass@{k}": float(np.mean([pass_at_k(e["answers"], e["passed"], k) for e in kept]))
            for k in _SHOWN
            if k <= least
        }

    def _judge(self, row: Example, texts: Sequence[str]) -> Score:
        if not self._tests(row):
            return Score(
                None, {"why": f"the row has no tests in its field {self._options.tests!r}"}
            )
        if len(texts) < self._options.k:
            return Score(None, {"why": f"{len(texts)} answers are too few for k {self._options.k}"})
        runs = []
        for text in texts:
            key = (row.id, text)
            if key not in self._ran:
                self._ran[key] = self._run(row, text)
            runs.append(self._ran[key])
        passed = sum(run.passed for run in runs)
        evidence = {
            "answers": len(runs),
            "passed": passed,
            "outcomes": dict(Counter(run.outcome for run in runs)),
            "sandbox": runs[0].protection.sentence(),
        }
        why = next((run.why for run in runs if not run.passed), None)
        if why:
            evidence["why"] = why
        return Score(pass_at_k(len(runs), passed, self._options.k), evidence)

    def _tests(self, row: Example) -> str:
        return str(row.meta.get(self._options.tests) or "")

    def _run(self, row: Example, text: str) -> Result:
        name = str(row.meta.get(self._options.entry_point) or "")
        tests = self._tests(row)
        if name and "def check(" in tests:
            tests += f"\n\ncheck({name})\n"
        parts = [("answer.py", self._code(row, text, name)), ("tests.py", tests)]
        return run_code(parts, self._limits, packages=self._options.packages)

    def _code(self, row: Example, text: str, name: str) -> str:
        code = find_code(text, name)
        how = self._options.continues
        before = find_code(row.input_text, name)
        goes_on = bool(name) and _defines(before, name) and not _defines(code, name)
        return before + code if how == "always" or (how == "auto" and goes_on) else code


def _texts(answer: RowResult) -> list[str]:
    """Return the answers drawn for a row, without failed requests; else the written one."""
    drawn = answer.detail.get("samples")
    return [answer.text] if drawn is None else [text for text in drawn if text is not None]


def find_code(text: str, name: str = "") -> str:
    """Return the code in a text: the fenced block that defines `name`, else the longest, else all.

    Without a fence the text is code as it stands, its indentation kept.
    """
    blocks = [str(body) for _, body in _FENCE.findall(text)]
    if not blocks:
        return text
    defining = [block for block in blocks if name and _defines(block, name)]
    return defining[0] if defining else max(blocks, key=len)


def _defines(code: str, name: str) -> bool:
    return (
        re.search(rf"^\s*(?:async\s+)?(?:def|class)\s+{re.escape(name)}\b", code, re.M) is not None
    )


def pass_at_k(answers: int, passed: int, k: int) -> float:
    """Return 1 − C(n − c, k) / C(n, k) for c of n answers that passed, as a product.

    Unbiased, and free of overflow (Chen et al. 2021, equation 1 and figure 3).
    """
    if answers - passed < k:
        return 1.0
    return float(1.0 - np.prod(1.0 - k / np.arange(answers - passed + 1, answers + 1)))
