"""The answers of an audit's finished batches, on disk until the audit is written."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from nearfar.atomic import write_atomically
from nearfar.auditing.accuracy import CurveRecorder

__all__ = ["FinishedBatches", "batches_key", "remove_batches"]

_NAME = "audit-batches-{}.safetensors"
_KEY = "nearfar.audit-batches"
_EVERY_S = 20.0
Records = Mapping[str, CurveRecorder]


class FinishedBatches:
    """Which batches are answered, and their answers; an audit that was ended goes on from them.

    Args:
        folder: of the audit; ``None`` writes nothing.
        rank: of the process, which has a file of its own.
        key: what the answers depend on (:func:`batches_key`): files with another are passed over.
    """

    def __init__(self, folder: Path | None, rank: int, key: str) -> None:
        self._folder, self._key = folder, key
        self._path = None if folder is None else folder / _NAME.format(rank)
        self._saved_at = time.monotonic()

    def load(self, recorders: Records, batches: Sequence[Tensor]) -> Tensor:
        """Fills in the answers that an earlier start has left.

        Args:
            recorders: of each model, by name.
            batches: indices of the images of each batch.

        Returns:
            ``[batches]`` booleans: which ones they are.
        """
        done = torch.zeros(len(batches), dtype=torch.bool)
        for path in sorted(self._folder.glob(_NAME.format("*"))) if self._folder else ():
            tensors = _read(path, self._key)
            which = tensors.get("done")
            if which is None or which.shape != done.shape or not _fit(tensors, recorders):
                continue
            for number in (which & ~done).nonzero().flatten().tolist():
                images = batches[number]
                for name, tensor in _named(recorders).items():
                    tensor[:, images] = tensors[name][:, images]
            done |= which
        return done

    def save(self, recorders: Records, done: Tensor, *, last: bool = False) -> None:
        """Writes the answers, if there is a folder and the last time was a while ago.

        Args:
            recorders: of each model, by name.
            done: ``[batches]``: which of them are this process's answers.
            last: write in any case.
        """
        if self._path is None or (not last and time.monotonic() - self._saved_at < _EVERY_S):
            return
        tensors = {name: tensor.contiguous() for name, tensor in _named(recorders).items()}
        write_atomically(self._path, save({**tensors, "done": done}, metadata={_KEY: self._key}))
        self._saved_at = time.monotonic()


def remove_batches(folder: Path) -> None:
    """Removes what the processes of an audit have left in its folder, which is now written."""
    for path in folder.glob(_NAME.format("*")):
        path.unlink(missing_ok=True)


def batches_key(settings: object, logits: Sequence[Tensor]) -> str:
    """What answers depend on, as a number.

    Args:
        settings: points, images, sizes of batches and more; its ``repr`` counts.
        logits: of each model for the first images, which changed weights change.
    """
    digest = hashlib.sha256(repr(settings).encode())
    for tensor in logits:
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def _named(recorders: Records) -> dict[str, Tensor]:
    return {
        f"{number}.{name}": tensor
        for number, recorder in enumerate(recorders.values())
        for name, tensor in recorder.records.items()
    }


def _fit(tensors: Mapping[str, Tensor], recorders: Records) -> bool:
    named = _named(recorders)
    return all(
        name in tensors
        and tensors[name].shape == tensor.shape
        and tensors[name].dtype == tensor.dtype
        for name, tensor in named.items()
    )


def _read(path: Path, key: str) -> dict[str, Tensor]:
    """The tensors of a file; none where it is another audit's, or damaged."""
    try:
        with safe_open(str(path), framework="pt") as file:
            if (file.metadata() or {}).get(_KEY) != key:
                return {}
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError):
        return {}
