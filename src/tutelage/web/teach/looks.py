"""How lists beside a page and two answers are laid out. Colours are those of the stylesheet."""

from __future__ import annotations

from nicegui import ui

_CSS = """
.tt-review { display: grid; gap: 16px; grid-template-columns: minmax(0, 1fr); align-items: start; }
@media (min-width: 1100px) {
  .tt-review { grid-template-columns: minmax(15rem, 19rem) minmax(0, 1fr); }
}
.tt-queue-entry { display: block; width: 100%; text-align: left; padding: 8px 10px; font: inherit;
  color: var(--tt-ink); background: none; border: 1px solid transparent; border-radius: 6px;
  cursor: pointer; overflow-wrap: anywhere; }
.tt-queue-entry:hover { background: var(--tt-hover); }
.tt-queue-entry[aria-current] { border-color: var(--tt-accent); background: var(--tt-hover); }
.tt-pair { display: grid; gap: 16px; grid-template-columns: minmax(0, 1fr); width: 100%; }
@media (min-width: 768px) { .tt-pair { grid-template-columns: repeat(2, minmax(0, 1fr)); } }
.tt-review .nicegui-column > .nicegui-column:empty { display: none; }
.tt-pair > .tt-card { height: 100%; }
.tt-done { height: 8px; width: 100%; border-radius: 4px; background: var(--tt-sunk);
  border: 1px solid var(--tt-line); overflow: hidden; }
.tt-done > div { height: 100%; background: var(--tt-accent); }
"""


def looks() -> None:
    """Add the rules to the page that is drawn."""
    ui.add_css(_CSS)


def progress_bar(done: int, total: int, name: str) -> ui.element:
    """Draw how much of something is done; a screen reader hears the numbers."""
    share = 100 * done / total if total else 100.0
    with ui.element("div").classes("tt-done").props("role=progressbar") as bar:
        bar.props["aria-label"] = name
        bar.props["aria-valuemin"], bar.props["aria-valuemax"] = 0, total
        bar.props["aria-valuenow"] = done
        ui.element("div").style(f"width: {share:.1f}%")
    return bar
