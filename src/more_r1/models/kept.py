"""What was made of the pictures seen lately: the pairs of a document share its picture, an epoch comes back to all of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from more_r1.reasoning.prompt import Picture

T = TypeVar("T")
MOST_BYTES = 512 * 2**20


class Kept(Generic[T]):
    """Calls `make` for a picture that it has not seen lately. What it keeps has at most MOST_BYTES, counted by `size`, but the
    last one stays in any case."""

    def __init__(self, make: Callable[[Picture], T], size: Callable[[T], int]) -> None:
        self._make, self._size = make, size
        self._made: OrderedDict[Picture, T] = OrderedDict()
        self._bytes = 0

    def __call__(self, picture: Picture) -> T:
        if picture in self._made:
            self._made.move_to_end(picture)
            return self._made[picture]
        made = self._made[picture] = self._make(picture)
        self._bytes += self._held(picture, made)
        while self._bytes > MOST_BYTES and len(self._made) > 1:
            self._bytes -= self._held(*self._made.popitem(last=False))
        return made

    def forget(self) -> None:
        """Let go of all."""
        self._made.clear()
        self._bytes = 0

    def _held(self, picture: Picture, made: T) -> int:
        # An encoded picture is kept as long as what was made of it, and may be the larger of the two.
        return self._size(made) + (len(picture.source) if isinstance(picture.source, bytes) else 0)
