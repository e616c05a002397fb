"""Rows of tokens in the browser, those that are learned apart from those that are only read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nicegui import ui

_STYLE = """
.tt-tokens { list-style: none; margin: 0; padding: 0; display: grid; gap: 1rem; }
.tt-tokens-head { font-size: .8125rem; margin-bottom: .25rem; }
.tt-tokens-row { white-space: pre-wrap; overflow-wrap: anywhere; line-height: 1.75;
  font-family: ui-monospace, monospace; font-size: .875rem; }
.tt-token { border-radius: 2px; box-shadow: inset -1px 0 0 var(--tt-line, #8884); }
.tt-token-learned { background: var(--tt-good-soft, #1a7f4b33); font-weight: 600;
  border-bottom: 2px solid var(--tt-good, #1a7f4b); }
.tt-token-partly { background: var(--tt-info-soft, #1f5aa833);
  border-bottom: 2px dashed var(--tt-info, #1f5aa8); }
.tt-token-cut { background: var(--tt-warn-soft, #b8860b33); padding: 0 .5rem; margin: 0 .25rem;
  font-family: inherit; }
.tt-legend { display: flex; flex-wrap: wrap; gap: 1rem; align-items: center; }
"""
_LEGEND = (
    ("learned", "learned: the loss is on it"),
    ("partly", "partly: the loss counts by train.prompt_loss_weight"),
    ("read", "read only"),
    ("cut", "context was cut away here"),
)


class Tokens(ui.element, component="tokens.js"):
    """Rows as workflows/training/token_view.py gives them."""

    def __init__(self, rows: Sequence[dict[str, Any]]) -> None:
        super().__init__()
        ui.add_css(_STYLE)
        self._props["rows"] = list(rows)

    def set(self, rows: Sequence[dict[str, Any]]) -> None:
        """Show other rows."""
        self._props["rows"] = list(rows)
        self.update()


def legend(kinds: Sequence[str]) -> None:
    """Say what the looks mean, of these kinds."""
    with ui.element("div").classes("tt-legend"):
        for kind, words in _LEGEND:
            if kind in kinds:
                ui.label(words).classes(f"tt-token tt-token-{kind}")
