"""The plain pages outside the frame: a form or a sentence, without any script.

Whatever is filled in is escaped. It reads nothing and decides nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from string import Template

from starlette.responses import HTMLResponse

from tutelage.web.auth import headers

_SHEET = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>$title · $project</title>
<link rel="stylesheet" href="/auth/style.css">
<link rel="icon" href="data:,">
</head>
<body>
<main>
<p class="project">$project</p>
<h1>$title</h1>
$body
</main>
</body>
</html>
""")
_FORM = Template("""<form method="post" action="$action">
<input type="hidden" name="csrf" value="$csrf">
$fields
<button type="submit">$button</button>
</form>""")
_FIELD = Template("""<label for="$name">$label</label>
<input id="$name" name="$name" type="$kind" value="$value" autocomplete="$fill" $more>""")


@dataclass(frozen=True)
class Field:
    """One line of a form. `fill` is what a browser may fill it with."""

    name: str
    label: str
    kind: str = "text"
    value: str = ""
    fill: str = "off"
    hint: str = ""
    fixed: bool = False


def page(
    project: str, title: str, parts: Sequence[str], status: int = 200, **more: str
) -> HTMLResponse:
    """Return a page of these parts, which are HTML; `more` are headers."""
    text = _SHEET.substitute(
        project=escape(project), title=escape(title), body="\n".join(part for part in parts if part)
    )
    named = {name.replace("_", "-"): value for name, value in more.items()}
    return HTMLResponse(text, status, headers={**headers.FORM, **named})


def form(action: str, csrf: str, fields: Sequence[Field], button: str) -> str:
    """Return a form; the first field that can be written in has the focus."""
    lines = []
    focus = next((field for field in fields if not field.fixed and not field.value), None)
    for field in fields:
        more = ["required", "maxlength=200"]
        more += ["readonly"] if field.fixed else []
        more += ["autofocus"] if field is focus else []
        more += [f'aria-describedby="{field.name}-hint"'] if field.hint else []
        lines.append(
            _FIELD.substitute(
                name=field.name,
                label=escape(field.label),
                kind=field.kind,
                value=escape(field.value),
                fill=field.fill,
                more=" ".join(more),
            )
        )
        if field.hint:
            lines.append(f'<p class="hint" id="{field.name}-hint">{escape(field.hint)}</p>')
    return _FORM.substitute(
        action=escape(action), csrf=escape(csrf), fields="\n".join(lines), button=escape(button)
    )


def wrong(text: str) -> str:
    """Return what went wrong, said aloud by a screen reader."""
    said_so = escape(text[:1].upper() + text[1:])
    return f'<p class="wrong" role="alert">{said_so}</p>' if text else ""


def said(text: str) -> str:
    """Return a sentence."""
    return f"<p>{escape(text)}</p>"


def link(address: str, text: str, *, button: bool = False) -> str:
    """Return a link to a place of this page."""
    kind = ' class="button"' if button else ""
    return f'<p><a href="{escape(address)}"{kind}>{escape(text)}</a></p>'
