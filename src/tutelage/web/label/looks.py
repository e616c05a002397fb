"""Where things stand on the desk. Colours come from the page's own properties."""

from __future__ import annotations

from nicegui import ui

_CSS = """
.tt-desk { display: grid; gap: var(--tt-gap); width: 100%; align-items: start;
  grid-template-columns: minmax(0, 1fr) minmax(0, 21rem); }
@media (max-width: 1180px) { .tt-desk { grid-template-columns: minmax(0, 1fr); } }
.tt-desk-main { display: flex; flex-direction: column; gap: var(--tt-gap); min-height: 34rem;
  min-width: 0; }
.tt-desk-side { display: flex; flex-direction: column; gap: var(--tt-gap); min-width: 0; }
.tt-item { font-size: 1.0625rem; line-height: 1.6; max-height: 46vh; overflow: auto; }
.tt-page .tt-reasons h3 { margin: 0; font-size: 0.8125rem; color: var(--tt-muted); }
.tt-reasons ul { margin: 0; padding: 0 0 0 1.1rem; list-style: disc; }
.tt-labels { display: grid; gap: 8px; width: 100%;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 13rem), 1fr)); }
.tt-labels-many { max-height: 42vh; overflow: auto; padding: 2px; }
.tt-label { display: flex; gap: 10px; align-items: center; text-align: left; padding: 9px 12px;
  font: inherit; color: var(--tt-ink); background: var(--tt-surface); cursor: pointer;
  border: 1px solid var(--tt-muted); border-radius: 6px; min-height: 44px; min-width: 0; }
.tt-label:hover { background: var(--tt-hover); }
.tt-label > span:first-of-type { flex: 1; min-width: 0; overflow-wrap: anywhere; }
.tt-label kbd { min-width: 1.6rem; text-align: center; }
.tt-label-drafted { border-color: var(--tt-accent); box-shadow: inset 0 0 0 1px var(--tt-accent); }
.tt-said { display: block; width: 100%; text-align: left; font: inherit; padding: 7px 8px;
  color: var(--tt-ink); background: none; border: 0; border-radius: 6px; cursor: pointer; }
.tt-said:hover { background: var(--tt-hover); }
.tt-said > span { display: block; overflow-wrap: anywhere; }
.tt-guide { max-height: 22rem; overflow: auto; }
"""


def looks() -> None:
    """Put the desk's styles into the page."""
    ui.add_css(_CSS)
