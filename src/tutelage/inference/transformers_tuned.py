"""A base model and what was tuned from it, one in use at a time: adapters share its weights.

Nothing is answered here: `use` gives the model to run, and the answerer where the tuned thing
picks a label instead of writing text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tutelage.core.artifact import hash_files
from tutelage.core.errors import ModelError
from tutelage.inference.base import Completion, Prompt
from tutelage.inference.models import ModelSource
from tutelage.inference.transformers_load import load_model, with_adapter
from tutelage.inference.transformers_merge import MergedAdapter, can_merge
from tutelage.inference.tuned import Tuned, read_tuned, tuned_files


class Answerer(Protocol):
    """Answers in place of writing text, with the model that is in use."""

    def generate(self, prompts: Sequence[Prompt]) -> list[Completion]: ...

    def score_labels(
        self, prompts: Sequence[Prompt], answers: Sequence[str]
    ) -> NDArray[np.float64]: ...


MakeAnswerer = Callable[[Any, Any, Tuned], Answerer]  # (model, tokenizer, what was tuned)


def answerers() -> dict[str, MakeAnswerer]:
    """Return the known answerers by the name that tutelage.json carries."""
    from tutelage.inference.transformers_cloze import ClozeChoice
    from tutelage.inference.transformers_head import HeadChoice

    return {"cloze": ClozeChoice, "head": HeadChoice}


class TunedWeights:
    """Holds the base; loads an adapter beside it once, and one whole model at a time."""

    def __init__(self, model: Any, *, merge: bool = False) -> None:
        """`merge` folds the adapter in use into the base's matrices where that is possible.

        It pays where an adapter stays in use for many rows.
        """
        self._merge = merge
        self._merged: dict[str, MergedAdapter] = {}  # the newest
        self.base = self.model = model
        self.tuned: Tuned | None = None
        self._loaded: dict[str, str] = {}
        self._whole: tuple[str, Any] | None = None

    def use(self, folder: Path | None) -> Any:
        """Return the model to run for what lies in `folder`; None is the base.

        Raises ModelError if a file is missing or does not fit the base.
        """
        self.tuned = None if folder is None else read_tuned(folder)
        for merged in self._merged.values():
            merged.undo()
        if folder is None or self.tuned is None:
            if self._loaded:
                self.base.base_model.disable_adapter_layers()
            self.model = self.base
            return self.base
        digest = hash_files(folder, tuned_files(folder))
        if self.tuned.kind == "model":
            self.model = self._whole_model(folder, digest)
            return self.model
        if digest not in self._loaded:
            name = f"a{digest[:16]}"
            self.base = with_adapter(self.base, folder, name)
            self._loaded[digest] = name
        self.base.base_model.enable_adapter_layers()
        self.base.set_adapter(self._loaded[digest])
        if self._merge and can_merge(self.base):
            self._use_merged(digest)
        self.model = self.base
        return self.base

    def answerer(self, tokenizer: Any) -> Answerer | None:
        """Return what answers in place of writing, or None. Raises ModelError if it is unknown."""
        if self.tuned is None or not self.tuned.answerer:
            return None
        known = answerers()
        if self.tuned.answerer not in known:
            raise ModelError(
                f"the folder asks for the answerer {self.tuned.answerer!r}, which is not known",
                where=str(self.tuned.folder),
                fix="Update tutelage, or train again",
            )
        return known[self.tuned.answerer](self.model, tokenizer, self.tuned)

    def _use_merged(self, digest: str) -> None:
        if digest in self._merged:
            self._merged[digest].use()
            return
        self._merged.clear()  # the old one's memory first
        self._merged[digest] = MergedAdapter(self.base, self._loaded[digest])

    def _whole_model(self, folder: Path, digest: str) -> Any:
        if self._whole is None or self._whole[0] != digest:
            self._whole = None  # the old one's memory first
            dtype = str(next(self.base.parameters()).dtype).removeprefix("torch.")
            if self.tuned is not None and self.tuned.answerer == "head":
                from tutelage.inference.transformers_head import load_whole

                self._whole = (digest, load_whole(folder, self.base, dtype))
                return self._whole[1]
            source = ModelSource(str(folder), folder.name, "directory", folder, digest)
            self._whole = (digest, load_model(source, dtype=dtype))
        return self._whole[1]
