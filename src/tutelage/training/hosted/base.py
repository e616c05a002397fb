"""What a fine-tuning service must tell us: where things are, and how a tuned model is called.

Services are plug-ins of `tutelage.hosted`, made with the settings and the project's name. All else
(files, jobs, events, checkpoints) is OpenAI's jobs API, which api.py speaks with each of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from tutelage.training.hosted.http import Client

STAGE = "train"
SUCCEEDED, FAILED, CANCELLED = "succeeded", "failed", "cancelled"
ENDED = frozenset((SUCCEEDED, FAILED, CANCELLED))
Shape = Literal["method", "hyperparameters"]


@dataclass(frozen=True)
class Address:
    """Where a request goes: the whole URL, and the headers that carry the key."""

    url: str
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Pace:
    """Seconds between two looks at a job: the first pause, and the longest it grows to."""

    first_s: float = 5.0
    longest_s: float = 60.0


class HostedService(Protocol):
    """One service. `shape`: where a job's hyperparameters stand; `metadata`: jobs can carry some.

    Plug-ins of `tutelage.hosted`.
    """

    shape: Shape
    metadata: bool

    def address(self, path: str, model: str | None = None) -> Address:
        """Return where `path` of the API is; `model` is the one that a completion asks for.

        Raises EnvironmentProblem if the environment lacks the key.
        """
        ...

    def publish(self, client: Client, model: str, pace: Pace) -> str:
        """Make a tuned model callable; return the name that completions ask for.

        Doing it twice is doing it once.
        """
        ...
