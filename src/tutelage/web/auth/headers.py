"""What every answer tells the browser: run nothing of others, show this in no frame of others.

The page's library compiles templates in the browser and sets styles in place, so its pages need
'unsafe-eval' and inline styles. Inline scripts run only with the answer's own nonce, which the
library's template gives to those that stand in it. An evaluation's report, shown in a frame
without rights, keeps its own script, named by its hash. The forms for signing in allow no script.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib.resources import files

from jinja2 import ChoiceLoader, DictLoader
from nicegui.client import templates

from tutelage.core.html_policy import source_hash

_COMMON = (
    "default-src 'self'; img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-src 'self'; "
    "frame-ancestors 'self'; worker-src 'self' blob:; manifest-src 'self'; "
)
_PAGE = _COMMON + "script-src 'self' 'nonce-{}' {} 'unsafe-eval'; style-src 'self' 'unsafe-inline'"
_NONCE = 'nonce="{{ request.state.nonce }}"'
_FORM = (
    "default-src 'none'; style-src 'self'; img-src 'self' data:; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
_ALWAYS = {
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"SAMEORIGIN",
    b"referrer-policy": b"same-origin",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"permissions-policy": b"camera=(), microphone=(), geolocation=(), payment=(), usb=()",
}
FORM = {"content-security-policy": _FORM, "x-frame-options": "DENY", "cache-control": "no-store"}
_ASSETS = "/_nicegui/"  # scripts and styles of the library: the same for everybody


def with_policy(
    given: Iterable[tuple[bytes, bytes]], path: str, nonce: str
) -> list[tuple[bytes, bytes]]:
    """Return an answer's headers with those that were not set; answers for people aren't kept."""
    headers = list(given)
    there = {name.lower() for name, _ in headers}
    wanted = {**_ALWAYS, b"content-security-policy": _PAGE.format(nonce, _report()).encode()}
    if not path.startswith(_ASSETS):
        wanted[b"cache-control"] = b"no-store"
    return headers + [(name, value) for name, value in wanted.items() if name not in there]


@cache
def _report() -> str:
    """Return the policy's name for the script of evaluation reports."""
    found = files("tutelage.evaluation").joinpath("report.js").read_text(encoding="utf-8")
    return source_hash(found)


def mark_scripts() -> None:
    """Let the library's template give the nonce to its scripts: to those written there alone.

    Styles that a page adds (ui.add_css) come as a script of the head, which is ours alone.
    """
    environment = templates.env
    inner = environment.loader
    if inner is None:
        return
    source = inner.get_source(environment, "index.html")[0]
    marked = source.replace("<script", f"<script {_NONCE}")
    marked = marked.replace(
        "{{ head_html | safe }}",
        "{% set styling %}<script " + _NONCE + ">addStyle({% endset %}"
        "{{ head_html.replace('<script>addStyle(', styling) | safe }}",
    )
    environment.loader = ChoiceLoader([DictLoader({"index.html": marked}), inner])
    if environment.cache is not None:
        environment.cache.clear()
