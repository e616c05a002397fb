"""The section `deploy` of tutelage.yaml: how releases are served and how traffic moves to one.

Says what is allowed; nothing here serves.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tutelage.core.config_base import Ratio, Section
from tutelage.core.config_guards import LiveGuards
from tutelage.core.durations import Interval


class Endpoint(Section):
    """An OpenAI-compatible server (teacher, judge, embedder). The key stays in the environment."""

    base_url: str  # up to and with /v1
    model: str  # the model's name there
    api_key_env: str | None = None  # name of the environment variable that holds the key


class Backend(Section):
    """A server that answers: vLLM, or any other that is OpenAI-compatible."""

    base_url: str = Field(pattern=r"^https?://[^\s/]+")  # up to and with /v1
    model: str  # the base model's name there
    api_key_env: str | None = None  # name of the environment variable that holds the key
    # in messages and metrics; unset: the host and port of base_url
    name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]*$", max_length=63)
    # name or id of the one release that this server answers for, such as a whole tuned model
    release: str | None = None
    # where that server sees the project's .tutelage folder; unset: at the same path
    home: str | None = None
    # a second page of Prometheus metrics with the GPU's memory, such as the DCGM exporter's
    gpu_metrics: str | None = Field(default=None, pattern=r"^https?://[^\s/]+")


class Limits(Section):
    """When a rollout stops itself."""

    latency: float = Field(default=1.2, gt=1)  # a percentile over the baseline's, a ratio
    error_rate: float = Field(default=0.05, gt=0, lt=1)  # share of failed requests
    memory: Ratio = 0.95  # of the machine's or the GPU's, twice running
    # a live score (0..1) may be lower by less than this before all traffic moves, a difference
    score: float = Field(default=0.05, gt=0, lt=1)
    # canary requests that are worth waiting for, where their scores can then exclude such a drop
    score_requests: int = Field(default=5000, ge=0)
    alpha: float = Field(default=0.01, gt=0, lt=0.5)  # false-alarm rate of the whole rollout


class Deploy(Section):
    """How releases are served and how traffic moves to a new one."""

    engine: str = "embedded"  # a plug-in of tutelage.launchers
    # what runs in the embedded engine; auto: llama.cpp, and transformers where a release needs it
    backend: Literal["auto", "llamacpp", "transformers"] = "auto"
    host: str = "127.0.0.1"  # any other address asks for API keys
    port: int = Field(default=8321, ge=0, le=65535)  # 0: any free one
    # how `rollout start` moves traffic: canary | blue_green | rolling | ab | shadow, or a plug-in
    strategy: str = "canary"
    canary: list[Annotated[float, Field(gt=0, le=100)]] = [1, 5, 25, 100]  # percent of traffic
    split: float = Field(default=50, gt=0, lt=100)  # ab: percent of users that get the candidate
    mirror: float = Field(default=100, gt=0, le=100)  # shadow: percent of requests it sees too
    # requests are mirrored to a candidate before it answers any; unset: for blue_green
    rehearse: bool | None = None
    keep_warm: float = Field(default=3600, ge=0)  # seconds the release before stays loaded
    min_requests: int = Field(default=50, ge=1)  # canary requests before a step may be taken
    min_total: int = Field(default=300, ge=1)  # canary requests before 100 %
    limits: Limits = Limits()
    guards: LiveGuards = LiveGuards()
    max_tokens: int = Field(default=256, ge=1)  # tokens of an answer, at most
    threads: int | None = None  # the engine's; unset: cores - 1
    slots: int = Field(default=4, ge=1, le=256)  # requests that llama.cpp computes at once
    context: int = Field(default=2048, ge=64)  # tokens that each may hold, prompt and answer
    endpoint: Backend | None = None  # engine: remote; any OpenAI-compatible server
    endpoints: list[Backend] = []  # engine: remote; several servers, in place of `endpoint`
    health_every: float = Field(default=2, gt=0)  # seconds between two looks at each server
    apart: bool = False  # each release has servers of its own, half of the endpoints at most
    # how often these models are called so that no service drops them as idle, such as 7d
    keep_alive: Interval | None = None
    concurrency: int = Field(default=32, ge=1)  # requests at the engine at once
    queue: int = Field(default=256, ge=0)  # requests that may wait; one more gets a 429
    timeout: float = Field(default=120, gt=0)  # seconds a request may take at the engine
    # seconds to the first piece of a stream; unset: as `timeout`
    first_token_timeout: float | None = Field(default=None, gt=0)
    idle_timeout: float = Field(default=60, gt=0)  # seconds between two pieces of a stream
    # of each key that has no limit of its own, in this gateway
    requests_per_minute: int | None = Field(default=None, ge=1)
    tokens_per_minute: int | None = Field(default=None, ge=1)  # likewise, asked and answered
    redact: bool = False  # personal and health identifiers are replaced in the log
    # whose texts are logged; ids, times, counts and checks always are
    log: Literal["all", "sampled", "none"] = "all"
    log_share: Ratio = 0.1  # log: sampled; share of the requests whose texts are kept
    log_days: int | None = Field(
        default=None, ge=1, le=36_500
    )  # records are deleted after; unset: never

    @model_validator(mode="after")
    def _steps_rise_to_all(self) -> Deploy:
        if not self.canary or sorted(set(self.canary)) != self.canary or self.canary[-1] != 100:
            raise ValueError("canary steps must rise and end with 100")
        return self

    @model_validator(mode="after")
    def _backends_differ(self) -> Deploy:
        if self.endpoint is not None and self.endpoints:
            raise ValueError("give one server as endpoint, or several as endpoints, not both")
        names = [backend.name or backend.base_url for backend in self.endpoints]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ValueError(f"two endpoints are called {min(twice)!r}; give each a name")
        return self

    @property
    def backends(self) -> tuple[Backend, ...]:
        """The servers of the engine `remote`, one or several."""
        return tuple(self.endpoints) or ((self.endpoint,) if self.endpoint else ())
