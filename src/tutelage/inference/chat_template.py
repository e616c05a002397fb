"""Renders a conversation with a model's own chat template, as transformers does, without it.

The template is read from the GGUF file and run by Jinja in the same sandbox with the same helpers,
so an engine sees the very text that training saw. llama.cpp's own chat endpoint is not used for
this: it re-implements Jinja, and its answer parser drops leading white space.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from jinja2 import TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from tutelage.core.errors import DataError, ModelError
from tutelage.inference.gguf_header import read_header

# For base models that bring no template: plain names, and the end token after an answer.
PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] | capitalize }}: {{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\\n\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
_TOKENS = "tokenizer.ggml.tokens"
_TOOLS = re.compile(
    r"\btools\b"
)  # a template that never reads `tools` leaves them out of the prompt
_NAMED = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}


class ChatTemplate:
    """A compiled template. `tokens` are its variables: bos_token, eos_token, ..."""

    def __init__(self, source: str, tokens: Mapping[str, str], *, adds_bos: bool = False) -> None:
        """`adds_bos`: the engine puts the begin token before the text by itself."""
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
        )
        environment.filters["tojson"] = _tojson
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
        try:
            self._template = environment.from_string(source)
        except TemplateError as error:
            raise ModelError(f"the model's chat template can't be read ({error})") from error
        self.knows_tools = _TOOLS.search(source) is not None
        self._tokens = dict(tokens)
        self._drop = tokens.get("bos_token", "") if adds_bos else ""

    @classmethod
    def of_gguf(cls, path: Path) -> ChatTemplate:
        """Return the template in a GGUF file, or a plain one if it has none."""
        metadata = read_header(path, frozenset((_TOKENS,))).metadata
        spellings = metadata.get(_TOKENS) or []
        tokens = {}
        for name, key in _NAMED.items():
            place = metadata.get(f"tokenizer.ggml.{key}_token_id")
            if place is not None and place < len(spellings):
                tokens[f"{name}_token"] = spellings[place]
        source = metadata.get("tokenizer.chat_template") or PLAIN_TEMPLATE
        adds_bos = bool(metadata.get("tokenizer.ggml.add_bos_token", False))
        return cls(str(source), tokens, adds_bos=adds_bos)

    def render(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = ()
    ) -> str:
        """Return the text that ends where the model starts to write. `tools` are OpenAI's.

        Raise DataError if the template refuses the turns (some want user and assistant to
        alternate).
        """
        try:
            text = self._template.render(
                messages=[dict(message) for message in messages],
                tools=[dict(tool) for tool in tools] or None,
                documents=None,
                add_generation_prompt=True,
                **self._tokens,
            )
        except TemplateError as error:
            raise DataError(f"the model's chat template refuses these turns ({error})") from error
        return text.removeprefix(self._drop)


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Write JSON without escaping HTML, which Jinja's own filter does."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
