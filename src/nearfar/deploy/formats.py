"""The two kinds of file that a network leaves as: how each is written, run and known again."""

from __future__ import annotations

import importlib.util
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from nearfar.classifiers.exported_files import ONNX_SPEC_KEY, PROGRAM_SPEC_KEY, input_spec_path
from nearfar.classifiers.program_check import check_program
from nearfar.deploy.capture import Openness, quietly
from nearfar.errors import InputError
from nearfar.records import parse_json

__all__ = ["FORMATS", "Format", "format_of", "refuse_what_is_not_ours"]

_NEEDED = ("onnx", "onnxscript", "onnxruntime")
#: An ONNX file is one message of protobuf's, which has this many bytes at most.
_MOST = 2**31


class Format(Protocol):
    """A kind of file."""

    def prepare(self, network: nn.Module, path: Path) -> None:
        """Refuses what this kind of file cannot hold, before any work."""

    def write(
        self, program: ExportedProgram, input_spec: str, path: Path, openness: Openness
    ) -> None:
        """Writes a program with its input spec."""

    def run(self, path: Path) -> Callable[[Tensor], Tensor]:
        """What answers with what was written."""

    def is_ours(self, path: Path) -> bool:
        """Whether a file is of this kind and carries a input_spec."""


class _Program:
    def prepare(self, network: nn.Module, path: Path) -> None:
        pass

    def write(
        self, program: ExportedProgram, input_spec: str, path: Path, openness: Openness
    ) -> None:
        torch.export.save(program, str(path), extra_files={PROGRAM_SPEC_KEY: input_spec})

    def run(self, path: Path) -> Callable[[Tensor], Tensor]:
        check_program(path)  # what would be refused when it is opened is not written
        with quietly():
            return torch.export.load(str(path)).module()

    def is_ours(self, path: Path) -> bool:
        try:
            with zipfile.ZipFile(path) as archive:
                return any(name.endswith(f"/{PROGRAM_SPEC_KEY}") for name in archive.namelist())
        except (zipfile.BadZipFile, OSError):
            return False


class _Onnx:
    def prepare(self, network: nn.Module, path: Path) -> None:
        missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
        if missing:
            raise InputError(
                f"{path} needs {', '.join(missing)}, which is not installed: pip install 'nearfar[export]'"
            )
        tensors = [*network.parameters(), *network.buffers()]
        size = sum(t.numel() * t.element_size() for t in tensors)
        if size >= _MOST:
            raise InputError(
                f"an ONNX file holds less than {_MOST / 2**30:g} GiB, and the network's numbers take "
                f"{size / 2**30:.1f}; export it to a .pt2"
            )

    def write(
        self, program: ExportedProgram, input_spec: str, path: Path, openness: Openness
    ) -> None:
        names = {0: "batch"} if openness.batch else {}
        if openness.image:
            names |= {2: "height", 3: "width"}
        with quietly(), torch.no_grad():
            exported = torch.onnx.export(
                program,
                dynamo=True,
                verbose=False,
                external_data=False,
                input_names=["images"],
                output_names=["logits"],
                dynamic_shapes=(names,) if names else None,
            )
            assert exported is not None, "only the old exporter gives nothing back"
            exported.model.metadata_props[ONNX_SPEC_KEY] = input_spec
            exported.save(str(path), external_data=False)

    def run(self, path: Path) -> Callable[[Tensor], Tensor]:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # it raises what it would print
        session: Any = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        (model_input,) = session.get_inputs()

        def answer(images: Tensor) -> Tensor:
            values = np.ascontiguousarray(images.numpy())
            return torch.from_numpy(np.asarray(session.run(None, {model_input.name: values})[0]))

        return answer

    def is_ours(self, path: Path) -> bool:
        import onnx

        try:
            model = onnx.load(str(path), load_external_data=False)
        except Exception:  # whatever the content makes the reader trip over: none of ours
            return False
        return any(entry.key == ONNX_SPEC_KEY for entry in model.metadata_props)


#: By the ending of a file's name.
FORMATS: dict[str, Format] = {".onnx": _Onnx(), ".pt2": _Program()}


def format_of(path: Path) -> Format:
    """The kind of file that a name asks for.

    Raises:
        InputError: another ending.
    """
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise InputError(
            f"out must end in .onnx (for onnxruntime and other engines) or .pt2 (for PyTorch), got {path}; "
            f"give it one of the two endings"
        )
    return kind


def refuse_what_is_not_ours(path: Path, kind: Format) -> None:
    """Lets only earlier exports be written over.

    Raises:
        InputError: something else is at ``path``, or where its input spec comes.
    """
    beside = input_spec_path(path)
    for target, ours in ((path, kind.is_ours), (beside, _is_input_spec)):
        if target.is_dir() or (target.exists() and not ours(target)):
            what = "a folder" if target.is_dir() else "a file that nearfar has not exported"
            raise InputError(
                f"{target} is {what}, and would be written over; choose another name, or move it away"
            )


def _is_input_spec(path: Path) -> bool:
    try:
        fields = parse_json(path.read_bytes(), str(path), "export again")
    except (InputError, OSError):
        return False
    return isinstance(fields, dict) and str(fields.get("schema")).startswith("nearfar.input_spec/")
