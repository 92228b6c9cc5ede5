"""The book that is kept while a network runs: what each layer has put out and multiplied with."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from nearfar.counting.seen import Seen
from nearfar.counting.sight import Lost, Sight
from nearfar.counting.table import Kind, Reach, Row
from nearfar.errors import InputError

__all__ = ["Entry", "Key", "Ledger", "key_of"]

#: What makes a parameter the same parameter: where its numbers lie.
Key = tuple[int, int, int]


def key_of(parameter: Tensor) -> Key:
    """Where a tensor's numbers lie."""
    storage: int = parameter.untyped_storage()._cdata
    return storage, int(parameter.storage_offset()), parameter.numel()


@dataclass
class Entry:
    """A row in the making."""

    name: str
    type: str
    kind: Kind
    output: tuple[int, ...] = ()
    units: int = 0
    connections: int = 0
    weights: int = 0
    parameters: int = 0
    multiplications: int = 0
    memory: int = 0
    calls: int = 0
    shared_with: str | None = None
    seen: list[Seen | None] = field(default_factory=list)

    def put_out(self, outputs: Iterable[Tensor], seen: Iterable[Seen | None]) -> None:
        """Enters what the layer has put out in one call."""
        outputs = list(outputs)
        if not self.calls and outputs:
            self.output = tuple(int(n) for n in outputs[0].shape[1:])
        self.calls += 1
        if self.kind not in ("other", "product"):
            self.units += sum(t.numel() for t in outputs)
        if self.kind != "product":
            self.memory += sum(t.numel() * t.element_size() for t in outputs)
        self.seen.extend(seen)

    def row(self, image: tuple[int, int]) -> Row:
        """The row; ``image`` is the height and width of the image."""
        field, reach = _field([s for s in self.seen if s is not None], image)
        return Row(
            name=self.name,
            type=self.type,
            kind=self.kind,
            output=self.output,
            units=self.units,
            connections=self.connections,
            weights=self.weights,
            parameters=self.parameters,
            multiplications=self.multiplications,
            memory=self.memory,
            field=field,
            reach=reach,
            covers=any(_covers(s, image) for s in self.seen if s is not None),
            calls=self.calls,
            shared_with=self.shared_with,
        )


class Ledger:
    """The entries of one run, in the order in which they begin.

    Args:
        model: the network that is to run.
        biases: whether biases count as weights.

    Raises:
        InputError: it has parameters that are not made yet.
    """

    def __init__(self, model: nn.Module, biases: bool) -> None:
        self.entries: dict[tuple[str, str, int], Entry] = {}
        self.keys: dict[int, Key] = {}
        self._biases = biases
        self._sizes: dict[Key, int] = {}
        self._claimed: dict[Key, Entry] = {}
        self._owned: dict[str, list[Key]] = {}
        self._modules = dict(model.named_modules())
        for path, module in self._modules.items():
            for name, parameter in module._parameters.items():
                if parameter is None:
                    continue
                if is_lazy(parameter):
                    raise InputError(
                        f"the parameter {name} of {path or 'the network'} has no shape yet; run the "
                        f"network once on an image, then count it"
                    )
                key = key_of(parameter)
                self.keys[id(parameter)] = key
                self._sizes[key] = parameter.numel()
                self._owned.setdefault(path, []).append(key)

    def owns(self, path: str) -> bool:
        """Whether a module holds parameters itself."""
        return path in self._owned

    def connected(self, path: str) -> Fraction:
        """The share of a layer's connections that exist: below 1 where it reads maps by a table."""
        share = getattr(self._modules[path], "connected", 1)
        return Fraction(share)

    def _leaf(self, path: str) -> bool:
        return next(self._modules[path].children(), None) is None

    def entry(self, path: str, operator: str, ordinal: int, kind: Kind) -> Entry:
        """The entry of a module's n-th operator of this name; made if there is none yet."""
        key = (path, operator, ordinal)
        if key not in self.entries:
            module = self._modules[path]
            whole = operator == "" or self._leaf(path)
            name = path if whole else f"{path}/{operator}" if path else operator
            if ordinal:
                name += f"#{ordinal + 1}"
            shown = type(module).__name__ if whole else operator
            self.entries[key] = Entry(name or shown, shown, kind)
        return self.entries[key]

    def claim(self, entry: Entry, weights: Iterable[Key], biases: Iterable[Key] = ()) -> None:
        """Counts parameters that a layer multiplies with or adds, unless counted before.

        Of several parameters that make one weight (direction and length, say) the largest is the
        weight; all are parameters.
        """
        weights = list(weights)
        largest = max(weights, key=lambda key: self._sizes[key], default=None)
        for key in [*weights, *biases]:
            if key not in self._claimed:
                self._claimed[key] = entry
                entry.parameters += self._sizes[key]
                if key == largest or (self._biases and key not in weights):
                    entry.weights += self._sizes[key]
            elif key == largest and self._claimed[key] is not entry:
                entry.shared_with = entry.shared_with or self._claimed[key].name

    def close(self) -> None:
        """Enters the parameters that no layer has multiplied with, each at its owner."""
        for path, keys in self._owned.items():
            own = [e for (p, _, _), e in self.entries.items() if p == path and self._leaf(path)]
            if own or any(key not in self._claimed for key in keys):
                entry = own[0] if own else self.entry(path, "", 0, "other")
                for key in keys:
                    if key not in self._claimed:
                        self._claimed[key] = entry
                        entry.parameters += self._sizes[key]
                    elif entry.kind == "other" and self._claimed[key] is not entry:
                        entry.shared_with = entry.shared_with or self._claimed[key].name
        # What only hands its parameters to a layer (a parametrisation) is no layer.
        self.entries = {
            key: entry
            for key, entry in self.entries.items()
            if entry.kind != "other" or entry.parameters or (entry.calls and self._leaf(key[0]))
        }


def _field(seen: list[Seen], image: tuple[int, int]) -> tuple[tuple[int, int] | None, Reach]:
    views = [view for s in seen for view in s.views]
    if not views:
        return None, "none"
    if Lost.UNKNOWN in views:
        return None, "not known"
    if any(s.views == (Lost.WHOLE, Lost.WHOLE) for s in seen):
        return None, "whole image"
    sizes = [
        max(
            view.size if isinstance(view, Sight) else image[a]
            for view in (s.views[a] for s in seen)
        )
        for a in (0, 1)
    ]
    return (sizes[0], sizes[1]), "pixels"


def _covers(seen: Seen, image: tuple[int, int]) -> bool:
    return all(_sees_all(seen, axis, image[axis]) for axis in (0, 1))


def _sees_all(seen: Seen, axis: int, length: int) -> bool:
    view = seen.views[axis]
    if not isinstance(view, Sight):
        return view is Lost.WHOLE
    dim = seen.placed(axis)
    units = seen.dims[dim][0].size if dim is not None else len(view.first)
    return any(a <= 0 and b >= length - 1 for a, b in map(view.at, range(units)))
