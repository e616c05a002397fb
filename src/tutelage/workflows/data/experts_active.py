"""Which texts without a label are worth an expert's minute, by what the dataset knows already."""

from __future__ import annotations

import numpy as np

from tutelage.core.errors import DataError
from tutelage.data.active import Known, Pool, suggest_rows
from tutelage.data.annotation.items import Item
from tutelage.inference.embed import load_embedder
from tutelage.workflows.context import Context
from tutelage.workflows.data.experts_rows import newest_version


def most_wanted(
    ctx: Context, items: list[Item], count: int, seed: int
) -> tuple[list[Item], list[str]]:
    """Return up to `count` items, the most wanted first, and a reason for each.

    Known are the train and validation rows of the newest version; test rows are not looked at.
    Raises DataError if every item is a row of the dataset already.
    """
    new = [item for item in items if item.example_id is None]
    if not new:
        raise DataError(
            "every text is a row of the dataset already, so none is worth a first label",
            fix="Bring texts without a label: --file texts.txt",
        )
    version = newest_version(ctx)
    rows = [*version.rows("train"), *version.rows("validation")] if version else []
    texts = [*(item.text for item in new), *(row.input_text for row in rows)]
    embedder = load_embedder(ctx.config.data.quality.embedder, len(texts))
    vectors = np.asarray(embedder.embed(texts), dtype=np.float32)
    pool, known = Pool(vectors[: len(new)]), Known(vectors[len(new) :], [r.label for r in rows])
    found = suggest_rows(pool, known, count, seed=seed)
    return [new[pick.index] for pick in found.picks], [pick.reason for pick in found.picks]
