"""A part of a page that is drawn anew only when what it shows has changed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from nicegui import ui

T = TypeVar("T")
_NOTHING = object()  # None is something to show


class Live(Generic[T]):
    """Holds a place on the page; `show` fills it by `draw`, and leaves it alone while equal.

    What has the focus inside it would lose it at a change, so fields of forms stand outside.
    """

    def __init__(self, draw: Callable[[T], object], classes: str = "w-full gap-2") -> None:
        self._draw = draw
        self._place = ui.column().classes(classes)
        self._shown: object = _NOTHING

    def show(self, data: T) -> None:
        """Show `data`."""
        if data == self._shown:
            return
        self._shown = data
        self._place.clear()
        with self._place:
            self._draw(data)

    def again(self) -> None:
        """Forget what is shown, so that the next `show` draws."""
        self._shown = _NOTHING


def steady(
    place: ui.element, work: Callable[[], Awaitable[object]]
) -> Callable[[], Awaitable[None]]:
    """Return a handler that draws its questions and notices in `place`.

    For buttons of a Live: what they ask stays while the button itself is drawn anew.
    """

    async def run() -> None:
        with place:
            await work()

    return run
