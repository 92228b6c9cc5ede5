"""Classifiers from exported files: ONNX, run by onnxruntime on the CPU, and programs of ``torch.export``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from nearfar.classifiers.answers import read_answers
from nearfar.classifiers.classifier import Classifier, LogitsFunction
from nearfar.classifiers.functions import Called
from nearfar.classifiers.input_spec import InputOptions, InputSpec, fills_canvas
from nearfar.classifiers.onnx_check import check_onnx
from nearfar.classifiers.program_check import check_program, tensors_only
from nearfar.data import Normalised
from nearfar.errors import InputError, first_line

__all__ = [
    "ONNX_SPEC_KEY",
    "PROGRAM_SPEC_KEY",
    "classifier_of",
    "from_onnx",
    "from_program",
    "input_spec_path",
]

#: Under which name an ONNX file carries its input spec among its metadata.
ONNX_SPEC_KEY = "nearfar"
#: Under which name a program carries its input spec.
PROGRAM_SPEC_KEY = "nearfar.json"


def input_spec_path(path: Path) -> Path:
    """Where the input spec of an exported file lies: ``x.onnx`` has ``x.onnx.json``."""
    return path.with_name(path.name + ".json")


def classifier_of(
    path: Path,
    answer: LogitsFunction,
    module: nn.Module | None,
    shape: Sequence[int | None],
    carried: str | bytes,
    options: InputOptions,
) -> Classifier:
    """An exported file as a classifier, by its input spec or, without one, by its input's shape.

    Args:
        path: the file.
        answer: what runs it.
        module: the network that does, where there is one.
        shape: of its input, ``None`` for sizes left open.
        carried: the input spec in its metadata; empty if there is none.
        options: what a file without an input spec does not say of itself.

    Raises:
        InputError: an input spec that cannot be read, settings that it has settled, or no size known.
    """
    batch = shape[0]
    input_spec = _input_spec_of(path, carried)
    if input_spec is not None:
        options.check_unset(str(path))
        return Classifier(input_spec, answer, module, batch=batch)
    layout, assumed_layout = _layout(shape, path)
    if layout == "NHWC":
        answer = module = ChannelsLast(Called(answer) if module is None else module)
        shape = (shape[0], shape[3], shape[1], shape[2])
    in_chans, side = shape[1] or 3, options.size or shape[2]
    if side is None:
        raise InputError(
            f"{path} takes images of any size and does not say which it was made for; give size"
        )
    form = read_answers(answer, module, path.name, (in_chans, side, side), options, batch)
    if not form.is_logits:
        answer = form.wrap(Called(answer) if module is None else module)
    figures = options.normalisation()
    if figures is not None:
        answer = Normalised(answer if isinstance(answer, nn.Module) else Called(answer), figures)
    if module is not None and isinstance(answer, nn.Module):
        module = answer
    protocol, assumed = fills_canvas(side, path.name)
    input_spec = InputSpec(
        path.name,
        in_chans,
        options.cropping(protocol),
        form.num_classes,
        any_size=shape[2] is None,
        assumed=assumed,
    )
    remarks = f"{assumed_layout} {form.remark}".strip()
    return Classifier(input_spec, answer, module, batch=batch, answers_assumed=remarks)


def _layout(shape: Sequence[int | None], path: Path) -> tuple[str, str]:
    """``NCHW`` or ``NHWC``, and a sentence on the latter."""
    channels = (1, 3)
    # Rows that are known after an open number in the channels' position are rows of channels first.
    if shape[3] in channels and shape[1] not in channels and (shape[1] or not shape[2]):
        return "NHWC", (
            f"{path.name} takes images [B, H, W, C], channels last: they are turned for it."
        )
    return "NCHW", ""


class ChannelsLast(nn.Module):
    """A network that takes ``[B, H, W, C]``, asked with ``[B, C, H, W]``."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Any:
        """Whatever the network answers."""
        return self.network(images.permute(0, 2, 3, 1).contiguous())


def _input_spec_of(path: Path, carried: str | bytes) -> InputSpec | None:
    """An exported file's input_spec: the one that it carries, or the one beside it.

    Args:
        path: the file.
        carried: the text in its metadata; empty if there is none.

    Raises:
        InputError: an input spec that cannot be read.
    """
    if carried:
        text = carried.decode() if isinstance(carried, bytes) else carried
        return InputSpec.from_json(text, f"the input spec in {path}")
    beside = input_spec_path(path)
    if not beside.is_file():
        return None
    try:
        return InputSpec.from_json(beside.read_text(encoding="utf-8"), str(beside))
    except UnicodeDecodeError as cause:
        raise InputError(f"{beside} is not text: {cause}; export the model again") from cause


def from_onnx(path: Path, options: InputOptions) -> Classifier:
    """Opens an ONNX file with one input ``[B, C, H, W]``, or ``[B, H, W, C]``.

    Args:
        path: the file.
        options: what a file that was not exported by nearfar does not say of itself.

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
    check_onnx(path)
    settings = onnxruntime.SessionOptions()
    # As many threads as torch has, so that figures of both can be compared.
    settings.intra_op_num_threads = torch.get_num_threads()
    try:
        session = onnxruntime.InferenceSession(
            str(path), settings, providers=["CPUExecutionProvider"], enable_fallback=0
        )
    except Exception as cause:  # the runtime's own classes, none of them public
        reason = first_line(cause)
        raise InputError(
            f"{path} cannot be run by onnxruntime: {reason}; export it again"
        ) from cause
    shape, answer = _asked_through(session, path)
    carried = session.get_modelmeta().custom_metadata_map.get(ONNX_SPEC_KEY, "")
    return classifier_of(path, answer, None, shape, carried, options)


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

    names = [output.name for output in session.get_outputs()]

    def answer(images: Tensor) -> Tensor | dict[str, Tensor]:
        values = np.ascontiguousarray(images.numpy().astype(kind))
        outputs = session.run(None, {model_input.name: values})
        # Sequences and maps, which are no tensors, are nothing that tells classes apart.
        tensors = {
            name: torch.from_numpy(output)
            for name, output in zip(names, outputs, strict=True)
            if isinstance(output, np.ndarray) and output.dtype.kind in "fiub"
        }
        return tensors[names[0]] if names == list(tensors) and len(names) == 1 else tensors

    return [n if isinstance(n, int) and n > 0 else None for n in model_input.shape], answer


def from_program(path: Path, options: InputOptions) -> Classifier:
    """Opens a program; it computes on the device it was exported for.

    Args:
        path: the file.
        options: what a program that was not exported by nearfar does not say of itself.

    Raises:
        InputError: no such file, not a program for images, or settings that its input spec has settled.
    """
    if not path.is_file():
        raise InputError(f"no program at {path}; name a .pt2 that torch.export.save wrote")
    check_program(path)
    carried = {PROGRAM_SPEC_KEY: ""}
    try:
        with tensors_only():
            program = torch.export.load(str(path), extra_files=carried)
        module = program.module()
    except Exception as cause:  # whatever the damage makes the reader trip over
        reason = first_line(cause)
        raise InputError(
            f"{path} cannot be read as a program of torch.export: {reason}; export it again"
        ) from cause
    shape = _input_shape(program, path)
    return classifier_of(path, module, module, shape, carried[PROGRAM_SPEC_KEY], options)


def _input_shape(program: ExportedProgram, path: Path) -> list[int | None]:
    """Sizes of the one input, ``None`` for those left open."""
    inputs = program.graph_signature.user_inputs
    shapes = [
        n.meta["val"].shape for n in program.graph.nodes if n.name in inputs and "val" in n.meta
    ]
    if len(shapes) != 1 or len(shapes[0]) != 4:
        raise InputError(
            f"{path} takes {len(inputs)} inputs where one tensor of images [B, C, H, W] is expected; export "
            f"a classifier of images"
        )
    return [n if isinstance(n, int) else None for n in shapes[0]]
