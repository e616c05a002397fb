"""One file a training method, and how a name is found: a plug-in, or a PEFT adapter's own name."""

from __future__ import annotations

from tutelage.core import plugins
from tutelage.core.errors import ConfigError, did_you_mean
from tutelage.training.methods.base import Method


def resolve(name: str) -> Method:
    """Return the method `name`: a plug-in of tutelage.methods first, then an adapter of PEFT.

    Upper and lower case are the same. Raises ConfigError, naming the nearest, if there is none.
    """
    known = plugins.available("methods")
    plain = name.lower().replace("-", "_").replace("+", "_plus")
    for spelling in (name, plain):
        if spelling in known:
            made: Method = plugins.load("methods", spelling)()
            return made
    from tutelage.training.adapter_config import is_peft_name, peft_names, refuse
    from tutelage.training.methods.peft import PeftMethod

    if is_peft_name(plain):
        refuse(plain)
        return PeftMethod(plain)
    names = sorted({*known, *peft_names()})
    hint = did_you_mean(plain, names)
    raise ConfigError(
        f"{name!r} is not one of tutelage's methods", fix=f"{hint}Known: {', '.join(names)}"
    )
