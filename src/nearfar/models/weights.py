"""Weights from a file into a network, whoever wrote the file."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from nearfar.errors import InputError, first_line

__all__ = ["load_weights", "read_weights"]

#: Under which names training scripts keep a network's tensors, and what wrappers put before theirs.
_INSIDE = ("state_dict_ema", "model_ema", "state_dict", "model", "module", "net")
_WRAPPERS = ("module.", "_orig_mod.", "model.")


def load_weights(model: nn.Module, path: Path | str) -> None:
    """Loads a network's weights, all of them or none.

    Takes ``.safetensors`` and what ``torch.save`` wrote (read with ``weights_only=True``: nothing in
    the file is run): a state dict, or one inside a training checkpoint. Prefixes of wrappers
    (``module.`` of DataParallel, ``_orig_mod.`` of torch.compile) are taken off, and names of other
    definitions of the same network become ours where the network knows them.

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
    if missing or unknown or shapes:
        faults = [
            f"{what} {', '.join(sorted(names)[:3])}{' …' if len(names) > 3 else ''}"
            for what, names in (("lacks", missing), ("has unknown", unknown))
            if names
        ]
        faults += [
            f"{n} is {tuple(state[n].shape)} where {tuple(own[n].shape)} is needed"
            for n in shapes[:3]
        ]
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
        InputError: no such file, or not a file of tensors.
    """
    state = _without_wrappers(_read(path))
    rename = getattr(model, "adapt_state_dict", None)
    return state if rename is None else dict(rename(state))


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise InputError(f"no file of weights at {path}")
    if path.suffix == ".safetensors":
        try:
            tensors: dict[str, Tensor] = load_file(str(path))
        except SafetensorError as cause:
            raise InputError(f"{path} is not a safetensors file, or is cut off: {cause}") from cause
        return tensors
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError) as cause:
        raise InputError(
            f"{path} cannot be read as weights alone ({first_line(cause)}); save the network's "
            f"state_dict() with torch.save or safetensors, where you trust the file's origin"
        ) from cause
    for key in _INSIDE:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if not isinstance(content, dict) or not all(isinstance(t, Tensor) for t in content.values()):
        raise InputError(
            f"{path} holds no state dict: tensors by name were expected, alone or under "
            f"{', '.join(_INSIDE)}; got {_described(content)}"
        )
    return dict(content)


def _described(content: Any) -> str:
    if isinstance(content, dict):
        return f"a dictionary with {', '.join(str(key) for key in list(content)[:5])}"
    return f"a {type(content).__name__}"


def _without_wrappers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    changed = True
    while changed and state:
        changed = False
        for prefix in _WRAPPERS:
            if all(name.startswith(prefix) for name in state):
                state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
                changed = True
    return state
