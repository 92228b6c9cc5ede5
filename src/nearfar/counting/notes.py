"""What is known about each tensor of a run, kept on the tensor itself; it goes when the tensor goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from nearfar.counting.calls import Call, tensors
from nearfar.counting.ledger import Key
from nearfar.counting.seen import Seen
from nearfar.counting.sight import Lost

__all__ = ["Learnt", "Notes"]

_NAME = "_nearfar_note"


@dataclass(frozen=True)
class Learnt:
    """Made from parameters alone; ``sources`` are those it still *is*, reshaped or rescaled."""

    sources: frozenset[Key]


class Notes:
    """The notes of one run; those of another, on tensors that a module has kept, mean nothing.

    Args:
        parameters: the network's parameters, by the ``id`` of the tensor.
    """

    def __init__(self, parameters: Mapping[int, Key]) -> None:
        self._parameters = parameters
        self._written: set[int] = set()
        self._run = object()

    def seen(self, value: Any) -> Seen | None:
        """What a tensor's units see of the image; ``None`` if nothing."""
        if not isinstance(value, Tensor):
            return None
        if self._written and value.untyped_storage()._cdata in self._written:
            return Seen.nowhere(value.shape, Lost.UNKNOWN)
        note = self._read(value)
        return note if isinstance(note, Seen) else None

    def sources(self, value: Any) -> frozenset[Key] | None:
        """The parameters that a tensor comes from; ``None`` if from none."""
        if not isinstance(value, Tensor):
            return None
        if id(value) in self._parameters:
            return frozenset({self._parameters[id(value)]})
        note = self._read(value)
        return note.sources if isinstance(note, Learnt) else None

    def learnt(self, value: Any) -> bool:
        """Whether a tensor comes from parameters."""
        return self.sources(value) is not None

    def write(self, value: Tensor, note: Seen | Learnt | None) -> None:
        """Notes what is known about a tensor now."""
        if id(value) in self._parameters:
            return
        if note is not None:
            setattr(value, _NAME, (self._run, note))
        elif hasattr(value, _NAME):
            delattr(value, _NAME)

    def from_parameters(self, call: Call, multiplied: bool) -> Learnt | None:
        """What to note about an output that sees nothing of the image."""
        inputs = tensors(call.arguments.values())
        found = [keys for t in inputs if (keys := self.sources(t)) is not None]
        if not found:
            return None
        return Learnt(frozenset() if multiplied else frozenset().union(*found))

    def watch_memory(
        self, writes: bool, call: Call, outputs: Sequence[Tensor], answers: Sequence[Seen | None]
    ) -> None:
        """Remembers memory that a map was written into by parts: what it holds is not followed."""
        storage = outputs[0].untyped_storage()
        if not writes:
            old = {t.untyped_storage()._cdata for t in tensors(call.arguments.values())}
            new = {t.untyped_storage()._cdata for t in outputs}
            self._written -= new - old
            return
        part = outputs[0].numel() * outputs[0].element_size() < storage.nbytes()
        if part and answers[0] is not None and self.seen(outputs[0]) != answers[0]:
            self._written.add(storage._cdata)

    def _read(self, value: Tensor) -> Any:
        run, note = getattr(value, _NAME, (None, None))
        return note if run is self._run else None
