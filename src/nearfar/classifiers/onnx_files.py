"""Classifiers from ONNX files, run by onnxruntime on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nearfar.classifiers.classifier import Classifier
from nearfar.classifiers.files import classifier_of
from nearfar.data import Normalisation
from nearfar.errors import InputError

__all__ = ["CARD", "from_onnx"]

#: Under which name an ONNX file carries its input spec among its metadata.
CARD = "nearfar"


def from_onnx(
    path: Path,
    figures: Normalisation | None = None,
    size: int | None = None,
    num_classes: int | None = None,
) -> Classifier:
    """Opens an ONNX file with one input ``[B, C, H, W]``; its first output are the logits.

    Args:
        path: the file.
        figures, size, num_classes: what a file that was not exported by nearfar does not say of itself.

    Raises:
        InputError: onnxruntime is not installed, no such file, not a model for images, or settings that
            its input spec has settled.
    """
    if not path.is_file():
        raise InputError(f"no ONNX file at {path}")
    try:
        import onnxruntime
    except ImportError as cause:
        raise InputError(
            f"{path} needs onnxruntime, which is not installed: pip install 'nearfar[export]'"
        ) from cause
    options = onnxruntime.SessionOptions()
    # As many threads as torch has, so that figures of both can be compared.
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
    except Exception as cause:  # the runtime's own classes, none of them public
        reason = str(cause).strip().partition("\n")[0]
        raise InputError(
            f"{path} cannot be run by onnxruntime: {reason}; export it again"
        ) from cause
    shape, answer = _asked_through(session, path)
    carried = session.get_modelmeta().custom_metadata_map.get(CARD, "")
    return classifier_of(path, answer, None, shape, carried, figures, size, num_classes)


def _asked_through(session: Any, path: Path) -> tuple[list[int | None], Any]:
    """Sizes of the one input (``None`` for open ones), and a function that runs the model."""
    inputs = session.get_inputs()
    if len(inputs) != 1 or len(inputs[0].shape) != 4:
        raise InputError(
            f"{path} takes {len(inputs)} inputs where one tensor of images [B, C, H, W] is expected; export "
            f"a classifier of images"
        )
    (model_input,) = inputs
    types = {
        "tensor(float)": np.float32,
        "tensor(float16)": np.float16,
        "tensor(double)": np.float64,
    }
    if model_input.type not in types:
        raise InputError(
            f"{path} takes {model_input.type} where floating-point images are expected; export it so"
        )
    kind = types[model_input.type]

    def answer(images: Tensor) -> Tensor:
        values = np.ascontiguousarray(images.numpy().astype(kind))
        return torch.from_numpy(np.asarray(session.run(None, {model_input.name: values})[0]))

    return [n if isinstance(n, int) and n > 0 else None for n in model_input.shape], answer
