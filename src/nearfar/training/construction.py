"""Networks that a file describes are built within bounds: a few bytes must not ask for a machine's memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

from nearfar.errors import InputError

__all__ = ["construction_limit"]

#: Numbers and tensors that any network may have besides those in its file: what building it computes.
_NUMBERS, _TENSORS = 2**26, 5_000
#: How many times the file's own number they may be.
_SHARE, _TENSOR_SHARE = 16, 64


@contextmanager
def construction_limit(numbers: int, tensors: int) -> Iterator[None]:
    """Within it, tensors are made only as long as they are not many times those of a file of weights.

    Args:
        numbers: how many the file's tensors hold together.
        tensors: how many the file has.

    Raises:
        InputError: more are asked for; none of that size is made.
    """
    with _Limit(_NUMBERS + _SHARE * numbers, _TENSORS + _TENSOR_SHARE * tensors):
        yield


class _Limit(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what is asked for: operators whose first argument is a list of sizes make new tensors."""

    def __init__(self, numbers: int, tensors: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._numbers, self._tensors = numbers, tensors

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        sizes = args[0] if args else None
        if isinstance(sizes, (list, tuple)) and all(isinstance(n, int) for n in sizes):
            self._numbers -= math.prod(sizes)
            self._tensors -= 1
            if self._numbers < 0 or self._tensors < 0:
                raise InputError(
                    f"the record describes a network far larger than the file's weights (a tensor of "
                    f"{'×'.join(map(str, sizes))} is asked for); take a whole copy of the file, or train "
                    f"again"
                )
        return func(*args, **(kwargs or {}))
