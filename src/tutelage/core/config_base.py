"""What every section of tutelage.yaml is made of."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Task = Literal["classification", "extraction", "qa", "summarization", "generation", "code", "text"]
Ratio = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A part of tutelage.yaml: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)
