"""What a server's Prometheus page tells of its memory and its queue.

Reads the names of vLLM, SGLang and llama.cpp's server, and DCGM's for a GPU. It judges nothing.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass

_LINE = re.compile(r"^(\w[\w:]*)(?:\{(.*)\})?\s+(\S+)(?:\s+\d+)?\s*$")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_KV_CACHE = (
    "vllm:kv_cache_usage_perc",
    "vllm:gpu_cache_usage_perc",  # vLLM before 0.10
    "sglang:token_usage",
    "llamacpp:kv_cache_usage_ratio",
)
_RUNNING = ("vllm:num_requests_running", "sglang:num_running_reqs", "llamacpp:requests_processing")
_WAITING = ("vllm:num_requests_waiting", "sglang:num_queue_reqs", "llamacpp:requests_deferred")
_PREEMPTIONS = ("vllm:num_preemptions_total",)
_CONFIG = "vllm:cache_config_info"
_GPU_USED, _GPU_FREE = "DCGM_FI_DEV_FB_USED", "DCGM_FI_DEV_FB_FREE"  # MiB
_WANTED = frozenset(
    (*_KV_CACHE, *_RUNNING, *_WAITING, *_PREEMPTIONS, _CONFIG, _GPU_USED, _GPU_FREE)
)


@dataclass(frozen=True)
class Figures:
    """A server's state. Shares are 0..1; None is what the page does not tell."""

    kv_cache: float | None = None  # of the cache of keys and values, the fullest engine's
    preemptions: float | None = None  # requests put back for want of it, since the server started
    running: float | None = None  # requests
    waiting: float | None = None  # requests
    gpu_memory: float | None = None  # in use, the fullest GPU's
    gpu_reserved: float | None = None  # of a GPU's memory, taken when the server started

    def as_dict(self) -> dict[str, float]:
        """Return what is known."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def memory(self, before: Figures | None) -> dict[str, float]:
        """Return how full the memory is, by kind, with the figures of the sample before.

        A cache that is full while every request keeps its place is well used, not too small: it
        counts where requests were put back since, or where the server does not tell of that.
        """
        found = {} if self.gpu_memory is None else {"GPU memory": self.gpu_memory}
        pressed = self.preemptions is None
        if self.preemptions is not None and before is not None and before.preemptions is not None:
            pressed = self.preemptions > before.preemptions
        if self.kv_cache is not None and pressed:
            found["KV cache"] = self.kv_cache
        return found


def read_figures(*pages: str) -> Figures:
    """Return the figures that these pages, in Prometheus' text format, tell together."""
    samples: dict[str, list[float]] = defaultdict(list)
    used: dict[str, float] = {}
    free: dict[str, float] = {}
    for name, labels, value in (found for page in pages for found in _samples(page)):
        if name == _CONFIG:
            samples[name] += _floats(labels.get("gpu_memory_utilization", ""))
        elif name in (_GPU_USED, _GPU_FREE):
            where = labels.get("UUID") or labels.get("gpu", "")
            (used if name == _GPU_USED else free)[where] = value
        else:
            samples[name].append(value)
    shares = [used[gpu] / total for gpu in used if (total := used[gpu] + free.get(gpu, 0.0)) > 0]
    return Figures(
        kv_cache=_most(samples, _KV_CACHE),
        preemptions=_sum(samples, _PREEMPTIONS),
        running=_sum(samples, _RUNNING),
        waiting=_sum(samples, _WAITING),
        gpu_memory=max(shares) if shares and free else None,
        gpu_reserved=_most(samples, (_CONFIG,)),
    )


def _samples(page: str) -> Iterator[tuple[str, dict[str, str], float]]:
    for line in page.splitlines():
        match = _LINE.match(line)
        if match is None or match[1] not in _WANTED:
            continue
        for value in _floats(match[3]):
            yield match[1], dict(_LABEL.findall(match[2] or "")), value


def _floats(text: str) -> list[float]:
    try:
        value = float(text)
    except ValueError:
        return []
    return [value] if value == value else []


def _most(samples: dict[str, list[float]], names: tuple[str, ...]) -> float | None:
    return max((v for name in names for v in samples.get(name, ())), default=None)


def _sum(samples: dict[str, list[float]], names: tuple[str, ...]) -> float | None:
    known = [value for name in names for value in samples.get(name, ())]
    return sum(known) if known else None
