"""What the name of a column or JSON key says about its values: `mrn`, `patient_name`, `dob`."""

from __future__ import annotations

import re
from functools import cache, lru_cache

from tutelage.data.privacy.kinds import KINDS
from tutelage.data.privacy.lists import in_order

# The more specific first: `email_address` is no address, `fax_number` no phone.
_ORDER = sorted(KINDS, key=lambda kind: (kind in ("phone", "place", "name", "other"), kind))


@cache
def _rules() -> tuple[tuple[str, re.Pattern[str]], ...]:
    end = r"(?:$|_(?:\d+|value|text|primary|home|work)$)"
    return tuple(
        (kind, re.compile(rf"(?:^|_)(?:{'|'.join(in_order('fields.txt', kind))}){end}"))
        for kind in _ORDER
    )


@lru_cache(maxsize=4096)
def kind_of_field(name: str) -> str | None:
    """Return the kind that a field's name promises for its whole value, or None."""
    split = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.strip())
    plain = re.sub(r"[^a-z0-9]+", "_", split.lower()).strip("_")
    return next((kind for kind, rule in _rules() if rule.search(plain)), None)
