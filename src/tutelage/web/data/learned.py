"""What is trained on, token by token, and the label coverage of a dataset version."""

from __future__ import annotations

from nicegui import ui

from tutelage.web.parts.layout import Action, card, empty, figure, heading, notice
from tutelage.web.parts.table import plain_table
from tutelage.web.parts.text import text
from tutelage.web.parts.words import count, number, percent
from tutelage.web.runs.start import JobBar, start
from tutelage.web.runs.tokens import Tokens, legend
from tutelage.web.view import View
from tutelage.workflows import jobs
from tutelage.workflows.data.versions import named
from tutelage.workflows.training import token_view

_PAGE = 8  # rows of tokens at once
_REJECTED = 100
_METHODS = {
    "lora": "LoRA", "rslora": "rsLoRA", "dora": "DoRA", "pissa": "PiSSA", "qlora": "QLoRA",
    "lora_plus": "LoRA+", "loraplus": "LoRA+", "dpo": "DPO", "kto": "KTO", "cpt": "CPT",
}  # fmt: skip


async def show_learned(view: View, version: str) -> None:
    """Draw the coverage and the rows, or how to get them."""
    dataset = await view.call(named, view.context, version)
    found = await view.call(token_view.find, view.context, dataset)
    heading(
        "What is trained on",
        Action(f"Version {dataset.short}", f"/data/{dataset.short}", icon="dataset"),
        note="The train rows as training reads them: with the project's prompt, the model's chat "
        "template and the settings of the plan.",
    )
    if found is None:
        await _ask(view, dataset.short)
        return
    facts = found.facts
    _figures(facts)
    if facts["shortened"]:
        notice(
            f"{count(len(facts['shortened']), 'row')} lost part of the context to "
            f"{facts['max_tokens']:,} tokens; the answers are whole. Raise train.max_tokens to "
            "keep it.",
            "warn",
        )
    await _rows(view, found)
    _rejected(facts["rejected"])


async def _ask(view: View, version: str) -> None:
    """Offer to read the rows, or show how far that is."""
    listed = await view.call(jobs.jobs, view.context, limit=100)
    mine = [job for job in listed if job.kind == "tokens" and job.arguments == (version,)]

    async def go() -> None:
        if await start(view, "tokens", (version,)) is not None:
            ui.navigate.reload()

    if mine and mine[0].alive:
        with card("The rows are being read"):
            JobBar(view, mine[0], ended=lambda job: ui.navigate.reload())
        return
    if mine and mine[0].state == jobs.FAILED:
        notice(mine[0].message, "bad")
    empty(
        "The rows were not read with the present settings yet. It takes some seconds and trains "
        "nothing.",
        f"tutelage data tokens {version}",
        Action("Read the rows", go, icon="segment", weight="main"),
    )


def _figures(facts: dict[str, object]) -> None:
    tokens, labelled = int(str(facts["tokens"])), int(str(facts["labelled"]))
    with ui.row().classes("gap-8"):
        figure(number(int(str(facts["rows"]))), "rows")
        figure(number(tokens), "tokens")
        if facts["learns"] == "tokens":
            figure(percent(labelled / tokens if tokens else None), "of them learned")
        figure(f"{facts['longest']} of {facts['max_tokens']}", "tokens in the longest row")
        method = str(facts["method"])
        figure(_METHODS.get(method, method), "method")


async def _rows(view: View, found: token_view.TokenView) -> None:
    facts = found.facts
    if not facts["shown"]:
        empty(f"The method {facts['method']} learns from pairs of answers, not from single rows.")
        return
    asked = {"start": 0, "cut": False}
    with card("Token by token"):
        partly = ("partly",) if 0 < facts["prompt_loss_weight"] < 1 else ()
        cut = ("cut",) if facts["shortened"] else ()
        legend(("learned", *partly, "read", *cut))
        if facts["learns"] == "labels":
            text("p", "This method learns each row's label; it stands at the row's end.")
        if facts["shown"] < facts["rows"]:
            text("p", f"The first {facts['shown']:,} rows are shown.", "tt-muted")
        if facts["shortened"]:
            only = ui.checkbox("Only rows whose context is cut")
        shown = Tokens([])
        with ui.row().classes("tt-pager"):
            place = text("span", "", "tt-muted").props('role="status"')
            before = ui.button(icon="chevron_left").props(
                'flat dense round aria-label="Rows before"'
            )
            after = ui.button(icon="chevron_right").props(
                'flat dense round aria-label="Rows after"'
            )

    async def draw() -> None:
        start_at = int(asked["start"])
        lines = await view.call(found.rows, start=start_at, count=_PAGE, cut=bool(asked["cut"]))
        shown.set(lines.rows)
        last = start_at + len(lines.rows)
        place.text = f"{min(start_at + 1, last):,}–{last:,} of {lines.total:,}"
        before.set_enabled(start_at > 0)
        after.set_enabled(last < lines.total)

    async def turn(by: int) -> None:
        if (by < 0 and before.enabled) or (by > 0 and after.enabled):
            asked["start"] = max(0, int(asked["start"]) + by)
            await draw()

    async def choose() -> None:
        asked.update(start=0, cut=bool(only.value))
        await draw()

    before.on_click(lambda: turn(-_PAGE))
    after.on_click(lambda: turn(_PAGE))
    if facts["shortened"]:
        only.on_value_change(choose)
    view.keys(
        {
            "ArrowLeft": ("Rows before", lambda: turn(-_PAGE)),
            "ArrowRight": ("Rows after", lambda: turn(_PAGE)),
        }
    )
    await draw()


def _rejected(rejected: dict[str, str]) -> None:
    if not rejected:
        return
    with card(f"Rows that can't be trained on ({len(rejected):,})"):
        rows = list(rejected.items())[:_REJECTED]
        plain_table(("row", "why"), rows, name="Rows that can't be trained on")
        if len(rejected) > _REJECTED:
            text("p", f"and {len(rejected) - _REJECTED:,} more", "tt-muted")
