"""What every section of tutelage.yaml is made of."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Task = Literal["classification", "extraction", "qa", "summarization", "generation", "code", "text"]
Ratio = Annotated[float, Field(ge=0, le=1)]


def yaml_word(value: Any) -> Any:
    """Return on or off where YAML has read the bare word as true or false."""
    return ("on" if value else "off") if isinstance(value, bool) else value


class Section(BaseModel):
    """A part of tutelage.yaml: unknown keys are errors."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, populate_by_name=True, allow_inf_nan=False
    )
