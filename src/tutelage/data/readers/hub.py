"""Data sets of the Hugging Face hub: `hf:org/name`, `hf:org/name/config`, each with `:split`.

They are fetched once, by `tutelage data import`; curation itself never asks the network.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tutelage.core.errors import ConfigError, EnvironmentProblem
from tutelage.data.readers.arrow import rows_of
from tutelage.data.readers.base import Item

PREFIX = "hf:"
_BATCH = 512  # rows


@dataclass(frozen=True)
class HubName:
    """A data set of the hub: its name, its configuration and split if they are named."""

    name: str
    config: str | None = None
    split: str | None = None

    @property
    def short(self) -> str:
        """The last word of the name, for a file."""
        return self.name.rpartition("/")[2]


def parse_name(text: str) -> HubName:
    """Return the parts of `hf:org/name[/config][:split]`; raise ConfigError if it is none."""
    name, _, split = text.removeprefix(PREFIX).partition(":")
    parts = name.split("/")
    if not all(parts) or len(parts) > 3:
        raise ConfigError(
            f"{text!r} names no data set",
            fix="Write hf:org/name, hf:org/name:split, or hf:org/name/config:split",
        )
    config = parts[2] if len(parts) == 3 else None
    return HubName("/".join(parts[:2]), config, split or None)


def read_hub(name: HubName, notes: list[str]) -> Iterator[Item]:
    """Yield the rows of all splits, or of the one named, each with its split.

    Raises EnvironmentProblem if the `datasets` library is not installed or the data set can't be
    reached.
    """
    for split, part in _load(name).items():
        notes.append(f"split {split}: {part.num_rows:,} rows")
        yield from rows_of(_batches(part), part.data.schema, notes, {"split": split})


def _batches(part: Any) -> Iterator[Any]:
    for table in part.with_format("arrow").iter(batch_size=_BATCH):
        yield from table.to_batches()


def _load(name: HubName) -> dict[str, Any]:
    """Return the splits of a data set by name, from the cache or the hub."""
    try:
        import datasets
    except ImportError as error:
        raise EnvironmentProblem(
            "data sets of the hub need the datasets library",
            fix="Run `pip install 'tutelage[tables]'`",
        ) from error
    datasets.disable_progress_bars()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it tells every retry
    try:
        found = datasets.load_dataset(name.name, name.config, split=name.split)
    except Exception as error:  # many kinds: not there, not reachable, no such split, gated
        first = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise EnvironmentProblem(
            f"the data set can't be loaded ({first})",
            where=f"{PREFIX}{name.name}",
            fix="Check the name, the split and the network; or save it elsewhere with "
            "save_to_disk and import the folder",
        ) from error
    return dict(found) if isinstance(found, dict) else {name.split or str(found.split): found}
