"""What an expert would say about a plan besides its settings: the gist, the risks, or a no."""

from __future__ import annotations

from tutelage.core.config import Train
from tutelage.training.memory import MemoryEstimate
from tutelage.training.planner_rules import (
    FEW_ROWS,
    LEAST_CLOZE,
    LEAST_ROWS,
    Situation,
    size_in_words,
)
from tutelage.training.recipe import Recipe

MEMORY_SHARE = 0.8  # of what is free may be planned for
_FEW_A_LABEL = 5
_MANY_EPOCHS = 10
_STRANGE_WORDS = 2.2  # tokens a word: general English takes about 1.3 in a vocabulary of 49,000
_WHAT = {
    "lora": "a LoRA adapter", "dora": "a DoRA adapter", "qlora": "a LoRA adapter on 4-bit weights",
    "full": "all weights", "cpt": "on raw text", "cloze": "a cloze", "classify": "a classifier",
    "dpo": "on preferences", "kto": "on judgements",
}  # fmt: skip


def headline(situation: Situation, recipe: Recipe, memory: MemoryEstimate, trained: int) -> str:
    """Return the plan in one sentence."""
    data, model = situation.data, situation.model
    what = _WHAT.get(recipe.method, f"an adapter ({recipe.method})")
    if recipe.tune not in ("full", recipe.method):
        what += f" with {_WHAT.get(recipe.tune, recipe.tune)}"
    steps = recipe.total_steps(recipe.all_rows(data.rows))
    size = recipe.batch_size
    share = trained / max(1, model.params)
    return (
        f"Train {what} on {_rows(data.rows)}: {size_in_words(trained)} of "
        f"{size_in_words(model.params)} weights ({share * 100:.1f} %), at most {recipe.epochs:g} "
        f"epoch{'s' if recipe.epochs != 1 else ''}, {steps:,} step{'s' if steps != 1 else ''} of "
        f"{_rows(size)}, "
        f"{memory.total_mb / 1000:.1f} of {situation.machine.free_mb / 1000:.1f} GB free memory"
    )


def warnings(
    situation: Situation, recipe: Recipe, memory: MemoryEstimate, overrides: Train
) -> list[str]:
    """Return what may go wrong, each with what helps."""
    return [
        *_about_rows(situation, recipe),
        *_about_machine(situation, recipe, memory),
        *_about_settings(situation, recipe, overrides),
    ]


def refusal(situation: Situation, overrides: Train) -> str | None:
    """Return why the run should not be started, or None."""
    data = situation.data
    if overrides.force or situation.method == "cloze" or data.texts:
        return None
    if situation.method == "cpt":
        return (
            f"train.method: cpt is for raw text, and the {_rows(data.rows)} are questions with "
            "answers; set task: text if the sources are raw text, or put the texts into a stage "
            "under train.before"
        )
    if data.rows >= LEAST_ROWS:
        return None
    can = "few-shot prompting"
    if data.task == "classification" and data.labels > 1 and data.rows >= LEAST_CLOZE:
        can += " or a cloze (train.method: cloze)"
    return (
        f"{_training_rows(data.rows)} too few to tune on (at least {LEAST_ROWS}): tuning would "
        f"overfit, it learns them by heart; take {can} and put the rows into the prompt as "
        "examples"
    )


def _rows(many: int) -> str:
    return f"{many:,} row{'s' if many != 1 else ''}"


def _training_rows(many: int) -> str:
    return f"{many:,} training row{'s are' if many != 1 else ' is'}"


def _about_rows(situation: Situation, recipe: Recipe) -> list[str]:
    data = situation.data
    found = []
    if recipe.method == "cloze" and data.rows < LEAST_CLOZE:
        found.append(
            f"{_training_rows(data.rows)} too few even for a cloze (at least {LEAST_CLOZE}): "
            "label more, or put the rows into the prompt as examples"
        )
    if data.rows < FEW_ROWS and recipe.method != "cpt" and not data.texts:
        found.append(
            f"{data.rows} training row{'s' if data.rows != 1 else ''}, fewer than {FEW_ROWS}: the "
            "system instructions stay in every row, and the result depends much on which rows "
            "these are"
        )
    if data.labels and data.rows / data.labels < _FEW_A_LABEL:
        found.append(
            f"{data.rows / data.labels:.1f} rows a label: rare labels will be guessed; five or "
            "more of each help most"
        )
    elif data.least_label and data.least_label < _FEW_A_LABEL:
        found.append(
            f"the rarest label has {_rows(data.least_label)}: it will be guessed; label more of it"
        )
    if data.validation_rows == 0:
        found.append(
            "no validation rows: nothing stops training when it starts to overfit; "
            + (data.unsplit or "give data.splits.validation a share")
        )
    if data.fertility > _STRANGE_WORDS and recipe.method != "cpt":
        found.append(
            f"your words take {data.fertility:.1f} tokens each (general English about 1.3): the "
            "base hardly knows them; continued pre-training on raw text of the domain first may "
            "help (train.before)"
        )
    if situation.preference and data.pairs < data.rows:
        missing = data.rows - data.pairs
        found.append(f"{missing} of {data.rows} rows have no rejected answer to compare with")
    return found


def _about_machine(situation: Situation, recipe: Recipe, memory: MemoryEstimate) -> list[str]:
    machine = situation.machine
    found = []
    safe = MEMORY_SHARE * machine.free_mb
    if memory.total_mb > safe:
        found.append(
            f"{memory.total_mb:,.0f} MB are needed and {safe:,.0f} MB are safe to use: close "
            "other programs, or choose a smaller model"
        )
    if recipe.tune == "full":
        found.append(
            "all weights move, so more is forgotten than with an adapter, and a release costs a "
            "whole model; LoRA reaches about as far on small data"
        )
    return found


def _about_settings(situation: Situation, recipe: Recipe, overrides: Train) -> list[str]:
    found = []
    if overrides.epochs is not None and overrides.epochs > _MANY_EPOCHS:
        found.append("more than 10 epochs on few rows learn them by heart")
    if recipe.mixout and recipe.tune != "full":
        found.append("train.mixout needs train.method: full; an adapter has no weights to mix back")
    if recipe.layer_decay < 1 and recipe.tune != "full":
        found.append("train.layer_decay needs train.method: full; an adapter has one rate")
    return found
