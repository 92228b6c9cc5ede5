"""What an interrupted run resumes from, checked before any of it is used: files may be damaged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from nearfar.errors import InputError
from nearfar.records import as_typed, short_repr

__all__ = [
    "BEST_FIELDS",
    "LAST_FIELDS",
    "check_fields",
    "check_optimizer",
    "check_schedules",
    "check_tensors",
]

_EPOCH: dict[str, Any] = {
    "epoch": int,
    "loss": object,
    "accuracy": float,
}  # the loss may be infinite
#: Types in ``best.ckpt``.
BEST_FIELDS: dict[str, Any] = {"best": _EPOCH, "weights": dict[str, Tensor]}
_MEAN: dict[str, Any] = {"sum": Tensor, "count": Tensor}
#: Types in ``last.ckpt``.
LAST_FIELDS: dict[str, Any] = {
    "epoch": int,
    "batch": int,
    "steps": int,
    "module": dict[str, Tensor],
    "optimizer": {"state": dict[Any, dict[str, Any]], "param_groups": list[dict[str, Any]]},
    "schedules": list[dict[str, Any]],
    "precision": dict[str, Any],
    "rate": float,
    "train_loss": _MEAN,
    "train_accuracy": _MEAN,
    "best": _EPOCH,
    "rows": list[dict[str, Any]],
    "data": dict[str, Any],
    "versions": dict[str, str],
}


def check_fields(state: Any, fields: Mapping[str, Any], name: str) -> None:
    """Refuses a state of which a part is missing or has another type.

    Args:
        state: as it was read.
        fields: the types by name; a mapping of such for a part with parts of its own.
        name: of the state, for the error's text.

    Raises:
        InputError: it does not have them.
    """
    if not isinstance(state, Mapping) or not fields.keys() <= state.keys():
        keys = (
            sorted(fields.keys() - state.keys()) if isinstance(state, Mapping) else sorted(fields)
        )
        raise InputError(f"{name} lacks {', '.join(keys)}")
    for key, hint in fields.items():
        if isinstance(hint, Mapping):
            check_fields(state[key], hint, f"{name}.{key}")
        elif hint is not object:
            as_typed(hint, state[key], f"{name}.{key}")


def check_tensors(saved: Mapping[str, Tensor], fresh: Mapping[str, Tensor], name: str) -> None:
    """Refuses tensors of other names, shapes or types than a new run's.

    Raises:
        InputError: they are others.
    """
    misfits = sorted(saved.keys() ^ fresh.keys())
    misfits += [
        key for key in saved.keys() & fresh.keys() if _form(saved[key]) != _form(fresh[key])
    ]
    if misfits:
        raise InputError(
            f"{name} does not fit the network: {', '.join(map(short_repr, misfits[:3]))} missing, unknown or "
            f"of another shape or type"
        )


def check_optimizer(saved: Mapping[str, Any], optimizer: Optimizer, name: str) -> None:
    """Refuses an optimiser's state of other groups, or of averages that have not their weights' shapes.

    Args:
        saved: its state dict.
        optimizer: the one that is to go on with it.
        name: of the state, for the error's text.

    Raises:
        InputError: it does not fit.
    """
    fresh = optimizer.state_dict()
    groups = zip(saved["param_groups"], fresh["param_groups"], strict=False)
    fits = len(saved["param_groups"]) == len(fresh["param_groups"])
    fits = fits and all(_is_alike(group, other) for group, other in groups)
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    for index, averages in saved["state"].items():
        if isinstance(index, str):  # gathered from processes that share the weights out
            continue
        shape = (
            weights[index].shape if isinstance(index, int) and 0 <= index < len(weights) else None
        )
        fits = fits and all(
            value is None
            or isinstance(value, (int, float))
            or (
                isinstance(value, Tensor)
                and not value.is_complex()
                and value.shape in ((), (1,), shape)
            )
            for value in averages.values()
        )
    if not fits:
        raise InputError(f"{name} is not that of this run's optimiser")


def check_schedules(saved: list[dict[str, Any]], fresh: list[dict[str, Any]], name: str) -> None:
    """Refuses states of schedules of other names or types than a new run's.

    Raises:
        InputError: they are others.
    """
    if not _is_alike(saved, fresh):
        raise InputError(f"{name} are not those of this run")


def _form(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.shape, tensor.dtype, tensor.layout


def _is_alike(saved: Any, fresh: Any) -> bool:
    """Whether plain data have the same keys and types; numbers may be of either type, and rates tensors."""
    if isinstance(fresh, Mapping):
        same = isinstance(saved, Mapping) and saved.keys() == fresh.keys()
        return same and all(_is_alike(saved[key], value) for key, value in fresh.items())
    if isinstance(fresh, (list, tuple)):
        same = isinstance(saved, (list, tuple)) and len(saved) == len(fresh)
        return same and all(_is_alike(*pair) for pair in zip(saved, fresh, strict=True))
    numbers = (int, float)
    if isinstance(fresh, numbers) and not isinstance(fresh, bool):
        return isinstance(saved, numbers) and not isinstance(saved, bool)
    return isinstance(saved, type(fresh))
