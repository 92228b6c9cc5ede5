"""Weights from a file into a network, whoever wrote the file."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from nearfar.errors import InputError, first_line

__all__ = ["load_weights", "read_weights"]

_LOG = logging.getLogger(__name__)

#: Under which names training scripts keep a network's tensors, in the order in which they are preferred.
_INSIDE = (
    *("state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model_state", "model"),
    *("module", "net", "network", "weights"),
)
#: How deep a state dict may lie within a training script's file.
_DEPTH = 3


def load_weights(model: nn.Module, path: Path | str) -> None:
    """Loads a network's weights, all of them or none.

    Takes ``.safetensors`` and what ``torch.save`` wrote (read with ``weights_only=True``: nothing in
    the file is run): a state dict, or one inside a training script's file, whatever lies beside it.
    The network's tensors may have a prefix there (``module.`` of DataParallel, ``_orig_mod.`` of
    torch.compile, ``model.`` or ``backbone.`` of a Lightning module), and tensors without that prefix
    (a criterion's, a counter) are left aside, which is said. Names of other definitions of the same
    network become ours where the network knows them.

    Args:
        model: the network; unchanged where anything does not fit.
        path: the file.

    Raises:
        InputError: no such file; not a file of tensors; names or shapes that do not fit.
    """
    path = Path(path)
    state = read_weights(model, path)
    own = model.state_dict()
    # Tensors that the network shares between places may be stored once, under the first name.
    first: dict[int, str] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        stored_name = first.setdefault(id(tensor), name)
        if name not in state and stored_name in state:
            state[name] = state[stored_name]
    batches = [n for n in own if n.endswith(".num_batches_tracked") and n not in state]
    state |= {name: own[name] for name in batches}  # what old files of batch norms do not have
    missing, unknown = own.keys() - state.keys(), state.keys() - own.keys()
    shapes = [n for n in own.keys() & state.keys() if own[n].shape != state[n].shape]
    kinds = [n for n in own.keys() & state.keys() if not _is_copyable(state[n])]
    if missing or unknown or shapes or kinds:
        faults = [
            f"{what} {', '.join(sorted(names)[:3])}{' …' if len(names) > 3 else ''}"
            for what, names in (("lacks", missing), ("has unknown", unknown))
            if names
        ]
        faults += [
            f"{n} is {tuple(state[n].shape)} where {tuple(own[n].shape)} is needed"
            for n in shapes[:3]
        ]
        faults += [f"has at {n} no dense tensor of real numbers" for n in sorted(kinds)[:3]]
        raise InputError(
            f"{path} does not fit {type(model).__name__}: it {'; '.join(faults)}; build the network with the "
            f"options that the weights were trained with (num_classes, in_chans, …)"
        )
    model.load_state_dict(state)


def read_weights(model: nn.Module, path: Path) -> dict[str, Tensor]:
    """A file's tensors under the names that a network has for them, whether they fit or not.

    Args:
        model: whose names; not changed.
        path: as in :func:`load_weights`.

    Raises:
        InputError: no such file, not a file of tensors, or several networks of this kind in it.
    """
    content = _read(path)
    candidates = list(_state_dicts(content))
    if not candidates:
        raise InputError(
            f"{path} holds no state dict: tensors by name were expected, alone or within a training script's "
            f"file; got {_described(content)}"
        )
    own = set(model.state_dict())
    # The first of the preferred names with tensors of this network, or whatever has most of them.
    overlaps = [_overlap(model, state, own) for _, state in candidates]
    best = max(
        range(len(candidates)),
        key=lambda i: (overlaps[i][0] > 0, -_rank(candidates[i][0]), overlaps[i][0]),
    )
    tensors, prefixes = candidates[best][1], overlaps[best][1]
    if len(prefixes) > 1:
        raise InputError(
            f"{path} holds {len(prefixes)} networks of this kind, under {', '.join(prefixes)}; save the "
            f"state_dict() of one"
        )
    state = _below(tensors, prefixes[0])
    if beside := sorted(tensors.keys() - {prefixes[0] + name for name in state}):
        listed = ", ".join(beside[:3]) + " …" * (len(beside) > 3)
        _LOG.warning(
            "%s holds more than the network's tensors (below %s): left aside: %s",
            path, prefixes[0], listed,
        )  # fmt: skip
    return _renamed(model, state)


def _read(path: Path) -> Any:
    """What a file holds; of classes that are no tensors an empty stand-in, so nothing of them is run."""
    if not path.is_file():
        raise InputError(f"no file of weights at {path}")
    if path.suffix == ".safetensors":
        try:
            return load_file(str(path))
        except SafetensorError as cause:
            raise InputError(f"{path} is not a safetensors file, or is cut off: {cause}") from cause
    stand_ins: list[Any] = []
    while True:
        try:
            with torch.serialization.safe_globals(stand_ins):
                return torch.load(path, map_location="cpu", weights_only=True)
        except Exception as cause:  # whatever the damage makes the reader trip over
            name = re.search(r"Unsupported global: GLOBAL (\S+) was not", str(cause))
            full = "" if name is None else name[1] if "." in name[1] else f"builtins.{name[1]}"
            if not full or full in {stand_in for _, stand_in in stand_ins}:
                raise InputError(
                    f"{path} cannot be read as weights alone ({_reason(cause)}); save the network's "
                    f"state_dict() with torch.save or safetensors, where you trust the file's origin"
                ) from cause
            # A dictionary with a default is one of which no other class may stand in the place.
            plain = full == "collections.defaultdict"
            stand_in = (
                _empty_dictionary if plain else type(full.replace("\0", "?"), (_StandIn,), {})
            )
            stand_ins.append((stand_in, full))


class _StandIn:
    """In place of an object that a training script saved beside the weights, such as its arguments."""

    def __new__(cls, *_: Any) -> _StandIn:
        return super().__new__(cls)

    def __setstate__(self, _: Any) -> None:
        """Forgets it."""


def _empty_dictionary(*_: Any) -> dict[Any, Any]:
    """What a dictionary with a default begins as."""
    return {}


def _is_copyable(tensor: Tensor) -> bool:
    """Whether a tensor's numbers can become a network's."""
    is_dense = tensor.layout == torch.strided and not tensor.is_meta
    return is_dense and not (tensor.is_complex() or tensor.is_quantized)


def _reason(cause: Exception) -> str:
    """torch's reason without the advice before it."""
    paragraphs = [text for text in str(cause).split("\n\n") if text.strip()]
    advice = paragraphs[0].startswith("Weights only load failed") if len(paragraphs) > 1 else False
    text = paragraphs[1] if advice else str(cause)
    return first_line(InputError(text.partition("WeightsUnpickler error: ")[2] or text))


def _state_dicts(
    content: Any, key: str = "", depth: int = _DEPTH
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Every mapping from names to tensors in a file, with the key that it lies under."""
    if not isinstance(content, Mapping) or depth < 0:
        return
    tensors = {k: v for k, v in content.items() if isinstance(k, str) and isinstance(v, Tensor)}
    if tensors:
        yield key, tensors
    for name, part in content.items():
        yield from _state_dicts(part, str(name), depth - 1)


def _rank(key: str) -> int:
    """Place of a key among the preferred ones."""
    return _INSIDE.index(key) if key in _INSIDE else len(_INSIDE)


def _overlap(model: nn.Module, state: dict[str, Tensor], own: set[str]) -> tuple[int, list[str]]:
    """How many of a network's names are in a state dict, and below which prefixes as many as that."""
    counts = Counter(
        "".join(f"{part}." for part in parts[:depth])
        for name in state
        for parts in [name.split(".")]
        for depth in range(len(parts))
    )
    # A prefix with less than half of the names is a part of the network, not all of it.
    prefixes = [prefix for prefix, count in counts.items() if 2 * count >= len(own) or not prefix]
    shares = {p: len(_renamed(model, _below(state, p)).keys() & own) for p in prefixes}
    most = max(shares.values())
    if most == 0:
        # Nothing is this network's: what all names begin with is a wrapper's.
        return 0, [max((p for p in prefixes if counts[p] == len(state)), key=len, default="")]
    return most, [prefix for prefix, count in shares.items() if count == most]


def _below(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: state[name] for name in state if name.startswith(prefix)}


def _renamed(model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    rename = getattr(model, "adapt_state_dict", None)
    return state if rename is None else dict(rename(state))


def _described(content: Any) -> str:
    if isinstance(content, dict):
        keys = ", ".join(str(key) for key in list(content)[:5])
        return f"a dictionary with {keys}" if keys else "an empty dictionary"
    if isinstance(content, _StandIn):
        return f"a whole {type(content).__name__}: save its state_dict() instead"
    return f"a {type(content).__name__}"
