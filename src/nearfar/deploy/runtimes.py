"""The ways a trained classifier can be run: each is prepared once and then answers batches."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nearfar.classifiers import Classifier, load_classifier
from nearfar.classifiers.classifier import LogitsFunction
from nearfar.deploy.capture import quietly
from nearfar.deploy.export import export
from nearfar.errors import InputError
from nearfar.models.modes import evaluating

__all__ = ["RUNTIMES", "Runtime"]

Prepared = tuple[LogitsFunction, Path | None]
"""What answers a batch, and the file that it runs, if there is one."""


@dataclass(frozen=True)
class Runtime:
    """A way to run a classifier.

    Attributes:
        prepare: from a classifier and a folder for files to what answers a batch ``[B, C, H, W]`` of values
            from 0 to 1 with ``[B, K]``.
        needs: packages beside those that nearfar always has.
        install: what to give pip to get them.
    """

    prepare: Callable[[Classifier, Path], Prepared]
    needs: tuple[str, ...] = ()
    install: str = ""

    def check_installed(self) -> None:
        """Refuses to go on without the packages.

        Raises:
            InputError: one is missing.
        """
        missing = [name for name in self.needs if importlib.util.find_spec(name) is None]
        if missing:
            raise InputError(f"{', '.join(missing)} not installed: pip install {self.install}")


def _eager(classifier: Classifier, folder: Path) -> Prepared:
    _network_of(classifier)
    return classifier.predict, None


def _compiled(classifier: Classifier, folder: Path) -> Prepared:
    network = _network_of(classifier)
    torch.compiler.reset()  # another network's leftovers would be compiled anew for this one's sizes
    with quietly():
        compiled: Callable[[Tensor], Tensor] = torch.compile(network)

    def answer(images: Tensor) -> Tensor:
        batch = images.contiguous(memory_format=torch.channels_last)
        with torch.inference_mode(), evaluating(network), quietly():
            return compiled(batch).float()

    return answer, None


def _program(classifier: Classifier, folder: Path) -> Prepared:
    return _exported(classifier, folder / "model.pt2")


def _onnx(classifier: Classifier, folder: Path) -> Prepared:
    return _exported(classifier, folder / "model.onnx")


def _openvino(classifier: Classifier, folder: Path) -> Prepared:
    import openvino

    path = folder / "model.onnx"
    if not path.exists():
        export(classifier, path)
    # By default it computes in bfloat16 where the processor can, which is another comparison.
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
    model = openvino.Core().compile_model(str(path), "CPU", settings)

    def answer(images: Tensor) -> Tensor:
        return torch.from_numpy(np.array(model(np.ascontiguousarray(images.numpy()))[0]))

    return answer, path


def _exported(classifier: Classifier, path: Path) -> Prepared:
    if not path.exists():
        export(classifier, path)
    return load_classifier(path).predict, path


def _network_of(classifier: Classifier) -> nn.Module:
    """The network that a classifier is.

    Raises:
        InputError: it is a file or a function.
    """
    if classifier.module is None:
        raise InputError(f"{classifier.name} is no PyTorch network")
    return classifier.module


#: By name, in the order of the table; the first that can be run is what the others are compared with.
RUNTIMES = {
    "eager": Runtime(_eager),
    "compiled": Runtime(_compiled),
    "program": Runtime(_program),
    "onnx": Runtime(_onnx, ("onnx", "onnxscript", "onnxruntime"), "'nearfar[export]'"),
    "openvino": Runtime(
        _openvino, ("onnx", "onnxscript", "openvino"), "'nearfar[export]' openvino"
    ),
}
