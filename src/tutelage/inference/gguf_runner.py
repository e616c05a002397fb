"""Leads llama.cpp along reference answers, as the embedded engine would serve the file.

The prompt is rendered from the file's own chat template and sent as text, so template, tokenizer
and weights are all on trial. Where the file prefers another token, the reference's is put in its
place and the answer goes on from there: one request and one more for each difference.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tutelage.core.errors import EnvironmentProblem, ModelError
from tutelage.inference.chat_template import ChatTemplate
from tutelage.inference.engine_listener import ask
from tutelage.inference.engine_server import LlamaServer, Sizes
from tutelage.inference.gguf_header import read_header
from tutelage.inference.parity import Followed, Reference

_CHOICES = 32  # log-probabilities asked for at each place
_Step = tuple[int, dict[str, Any] | None]  # a token, and its log-probabilities


class GgufRunner:
    """One GGUF file, with or without a LoRA file, in a llama.cpp server of this process."""

    def __init__(self, server: Any, key: str, template: ChatTemplate) -> None:
        self._server = server
        self._key = key
        self._template = template

    def follow(self, references: Sequence[Reference]) -> list[Followed]:
        """Return what the file says along each answer.

        Raises DataError if its chat template refuses a prompt, ModelError if it does not answer.
        """
        return [self._follow(reference) for reference in references]

    def tokens_of(self, text: str) -> tuple[int, ...]:
        """Return the ids of a prompt, as the server cuts it."""
        body = {"content": text, "add_special": True, "parse_special": True}
        return tuple(self._post("/tokenize", body)["tokens"])

    def close(self) -> None:
        """Let go of the server."""
        self._server = None

    def _follow(self, reference: Reference) -> Followed:
        if not reference.tokens:  # a plain text
            cut = self.tokens_of(str(reference.messages[-1]["content"]))
            return Followed(cut, (), (), " ".join(map(str, cut)))
        prompt = self._template.render(reference.messages)
        choices: list[int] = []
        logps: list[float] = []
        text: str | None = None
        while len(choices) < len(reference.tokens):
            left = reference.tokens[len(choices) :]
            written, steps = self._write(prompt, reference.tokens[: len(choices)], len(left))
            text = written if text is None else text
            for (choice, entry), token in zip(steps, left, strict=False):
                choices.append(choice)
                logps.append(_logp(entry, token))
                if choice != token:
                    break
        return Followed(self.tokens_of(prompt), tuple(choices), tuple(logps), text or "")

    def _write(self, prompt: str, forced: Sequence[int], count: int) -> tuple[str, list[_Step]]:
        """Return the text and the steps of up to `count` greedy tokens."""
        request = {
            "prompt": [prompt, *forced] if forced else prompt,
            "max_tokens": count,
            "temperature": 0.0,
            "top_k": 1,
            "logprobs": _CHOICES,
            "cache_prompt": True,
            "stream": False,
            "return_tokens": True,
            "verbose": True,  # lists every token, also those that end within a character
        }
        chunks: list[dict[str, Any]] = []
        self._server.handle_completions(request, chunks.append)
        problem = chunks[0].get("error") if chunks else {"message": "no answer came"}
        if problem:
            raise ModelError(f"llama.cpp can't answer a prompt ({problem.get('message')})")
        choice = chunks[0]["choices"][0]
        tokens = chunks[0]["__verbose"]["tokens"]
        if not tokens:
            raise ModelError("llama.cpp gave no token for a prompt")
        return str(choice["text"]), _steps(tokens, (choice["logprobs"] or {}).get("content") or [])

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        return ask(self._server.listening_address, self._key, path, body)


@contextmanager
def run_gguf(
    model: Path, lora: Path | None = None, *, context: int = 2048, threads: int | None = None
) -> Iterator[GgufRunner]:
    """Open a runner of `model` with the LoRA file `lora` on top; closed at the end.

    Raises EnvironmentProblem if llama.cpp is not installed, ModelError if it can't load the files.
    """
    try:
        import xllamacpp  # noqa: F401
    except ImportError as error:
        raise EnvironmentProblem(
            "llama.cpp is not installed, and a GGUF file is not exported unchecked",
            fix="Run `pip install 'tutelage[serve]'`",
        ) from error
    trained = read_header(model).of_architecture("context_length")
    held = min(context, int(trained)) if trained else context
    sizes = Sizes(threads or max(1, (os.cpu_count() or 2) - 1), slots=1, context=held)
    started = LlamaServer(model, [lora] if lora else [], sizes)
    runner = GgufRunner(started.server, started.key, ChatTemplate.of_gguf(model))
    try:
        yield runner
    finally:
        runner.close()
        started.stop()


def _steps(tokens: Sequence[int], entries: Sequence[dict[str, Any]]) -> list[_Step]:
    """Return each token with its entry of log-probabilities.

    llama.cpp lists none for a token that leaves a character unfinished. The one that finishes it
    comes last, so entries are laid to tokens from the end.
    """
    left = list(entries)
    steps: list[_Step] = []
    for token in reversed(tokens):
        listed = bool(left) and left[-1]["id"] == token
        steps.append((token, left.pop() if listed else None))
    return steps[::-1]


def _logp(entry: dict[str, Any] | None, token: int) -> float:
    """Return log p of `token`; of one that is not among the listed choices, the most it can be.

    Not a number where nothing is listed.
    """
    if entry is None:
        return math.nan
    listed = [*entry["top_logprobs"], entry]
    found = [float(c["logprob"]) for c in listed if c["id"] == token]
    return found[0] if found else min(float(c["logprob"]) for c in listed)
