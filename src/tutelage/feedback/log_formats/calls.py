"""A row of a log as a call: the conversation as an Example, and what the row says besides."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, cast

from tutelage.core.config import Columns, Task
from tutelage.core.example import Example
from tutelage.core.output import OutputFormat
from tutelage.data.readers.reading import Fields, Shape
from tutelage.data.readers.shape import Shaper
from tutelage.data.readers.turns import Unusable
from tutelage.feedback.log_formats.facts import Facts, Names, read_facts

_FACTS = "tutelage_log"
_NO_ANSWER = "D1-L01"


class CallShaper(Shaper):
    """Reads rows of logs. The row's own fields are left behind; `facts_of` has what they said.

    `loose`: rows without the column that asks are read by what they have.
    """

    def __init__(
        self,
        columns: Columns,
        output: OutputFormat,
        task: Task,
        names: Names,
        *,
        format: str = "auto",
        loose: bool = True,
    ) -> None:
        super().__init__(columns, output, task, format=format, strict=False)
        self._any = Shaper(Columns(), output, task, format=format, strict=False)
        self._loose = loose
        self._names = names

    def _find_shape(self, keys: tuple[str, ...], fields: Fields) -> Shape:
        """Return the shape of such rows. Logs seldom have the columns of the project's rows."""
        named = self.columns.input
        if self._loose and named is not None and named not in keys:
            return self._any._find_shape(keys, fields)
        return super()._find_shape(keys, fields)

    def example(self, fields: Fields, source: str) -> tuple[Example, Shape]:
        """Return the call and the shape it had; raise Unusable with the reason."""
        found, shape = super().example(fields, source)
        if found.answer is None or not found.context:
            raise Unusable(_NO_ANSWER, "not a call with a question and an answer")
        more = {key: found.meta[key] for key in ("tools",) if key in found.meta}
        facts = asdict(read_facts(fields, self._names))
        return found.model_copy(update={"meta": {**more, _FACTS: facts}}), shape


def facts_of(call: Example) -> Facts:
    """Return what the row said of the call besides question and answer."""
    return Facts(**cast(dict[str, Any], call.meta[_FACTS]))


def bare(call: Example) -> Example:
    """Return the call as a row of a data set, without what the log said of it."""
    meta = {key: value for key, value in call.meta.items() if key != _FACTS}
    return call.model_copy(update={"meta": meta})
