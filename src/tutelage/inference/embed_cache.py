"""Vectors that are kept on disk, so that no text is embedded twice by the same model.

A folder a model (by its fingerprint), in it shards: keys (hashes of texts) and their vectors.
Shards are written whole while the work goes on, so that a killed command resumes; an unreadable
one is left aside. Embedders without a fingerprint (tf-idf) are called every time.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tutelage.core.workspace import atomic_write
from tutelage.inference.base import Embedder, OnBatch

_SHARD = 1024  # texts embedded between two writes
_MANY = 24  # shards that are joined into one

Vectors = dict[bytes, NDArray[np.float32]]


def embed_cached(
    embedder: Embedder, texts: Sequence[str], folder: Path, on_batch: OnBatch | None = None
) -> NDArray[np.float32]:
    """Return `embedder.embed(texts)`, reading from and adding to the vectors under `folder`."""
    if embedder.fingerprint is None:
        return embedder.embed(texts, on_batch)
    home = folder / hashlib.sha256(embedder.fingerprint.encode()).hexdigest()[:16]
    by_key = {_key(text): text for text in texts if text.strip()}
    found = {key: row for key, row in _load(home) if key in by_key}
    missing = [key for key in by_key if key not in found]
    for start in range(0, len(missing), _SHARD):
        part = missing[start : start + _SHARD]
        tell = _further(on_batch, len(texts) - len(missing) + start, len(texts))
        vectors = embedder.embed([by_key[key] for key in part], tell)
        found.update(zip(part, vectors, strict=True))
        _write(home, part, vectors)
    if missing:
        _join(home)
    if on_batch is not None:
        on_batch(len(texts), len(texts))
    width = len(next(iter(found.values()))) if found else 1
    out = np.zeros((len(texts), width), dtype=np.float32)
    for index, text in enumerate(texts):
        if text.strip():
            out[index] = found[_key(text)]
    return out


def forget_texts(folder: Path, texts: Sequence[str]) -> int:
    """Delete the vectors of `texts` under `folder`, of every model; return how many there were."""
    gone = {_key(text) for text in texts}
    done = 0
    for path in sorted(folder.glob("*/*.npz")):
        shard = _read(path)
        if shard is None:
            continue
        keys, vectors = shard
        kept = [index for index, key in enumerate(keys) if key.tobytes() not in gone]
        if len(kept) == len(keys):
            continue
        done += len(keys) - len(kept)
        made = (
            _write(path.parent, [keys[i].tobytes() for i in kept], vectors[kept]) if kept else None
        )
        if made != path:
            path.unlink()
    return done


def _further(on_batch: OnBatch | None, before: int, total: int) -> OnBatch | None:
    """Return a listener that counts on from `before`."""
    if on_batch is None:
        return None
    return lambda done, _: on_batch(before + done, total)


def _key(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _load(home: Path) -> Iterator[tuple[bytes, NDArray[np.float32]]]:
    """Yield every kept vector by its text's key."""
    for path in sorted(home.glob("*.npz")):
        shard = _read(path)
        if shard is not None:
            keys, vectors = shard
            yield from zip((key.tobytes() for key in keys), vectors, strict=True)


def _read(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.float32]] | None:
    """Return a shard's keys, shape (N, 16), and vectors, shape (N, D); None if it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as shard:
            keys, vectors = shard["keys"], shard["vectors"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    sound = keys.dtype == np.uint8 and keys.ndim == vectors.ndim == 2 and len(keys) == len(vectors)
    return (keys, vectors) if sound else None


def _write(home: Path, keys: Sequence[bytes], vectors: NDArray[np.float32]) -> Path:
    """Write one shard, named by its keys."""
    stream = io.BytesIO()
    packed = np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(len(keys), 16)
    np.savez(stream, keys=packed, vectors=vectors.astype(np.float32, copy=False))
    path = home / f"{hashlib.sha256(packed.tobytes()).hexdigest()[:16]}.npz"
    atomic_write(path, stream.getvalue())
    return path


def _join(home: Path) -> None:
    """Make one shard of many; the old ones leave after the new one is durable."""
    paths = sorted(home.glob("*.npz"))
    if len(paths) < _MANY:
        return
    joined: Vectors = dict(_load(home))
    if not joined or len({row.shape for row in joined.values()}) > 1:
        return
    made = _write(home, list(joined), np.stack(list(joined.values())))
    for path in paths:
        if path != made:
            path.unlink(missing_ok=True)
