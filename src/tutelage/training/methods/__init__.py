"""One file a training method, and how a name is found: a plug-in, or a PEFT adapter's own name."""

from __future__ import annotations

from tutelage.core import plugins
from tutelage.training.methods.base import Method


def resolve(name: str) -> Method:
    """Return the method `name`. Raises ConfigError, listing the known ones, if there is none."""
    made: Method = plugins.load("methods", name)()
    return made
