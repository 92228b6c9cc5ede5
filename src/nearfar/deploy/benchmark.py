"""benchmark: one classifier run in several ways, compared in speed, memory and answers."""

from __future__ import annotations

import dataclasses
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nearfar.atomic import write_atomically
from nearfar.auditing import AuditSpec, ImageSelection, audit
from nearfar.auditing.audited_images import Data
from nearfar.classifiers import Classifier, InputOptions, Model, load_classifier
from nearfar.classifiers.classifier import LogitsFunction
from nearfar.deploy.formats import FORMATS, format_of
from nearfar.deploy.runtimes import RUNTIMES
from nearfar.errors import InputError, first_line
from nearfar.progress import Progress, Step, silent
from nearfar.provenance import machine, today
from nearfar.version import versions

__all__ = ["Benchmark", "RuntimeFigures", "benchmark"]

SCHEMA = "nearfar.benchmark/1"
#: How the files end that these runtimes run.
_ENDINGS = {"program": ".pt2", "onnx": ".onnx"}


@dataclass(frozen=True)
class RuntimeFigures:
    """How one way of running a classifier did.

    Attributes:
        runtime: its name.
        refused: why it could not be run; then all figures are ``None``.
        preparation: seconds until its first answer: opening, exporting, compiling.
        latency: seconds for a single image, the median of the rounds.
        latency95: seconds that 95 % of the single images took at most.
        throughput: images a second in batches, by the median batch.
        memory: bytes that a process needed at most for opening it and answering a batch, beside those of
            Python and its imports; ``None`` where the model is no name or file that a process can open.
        file_size: bytes of the file that it runs; ``None`` where it runs none.
        difference: the largest difference of an answer from the first runtime's, as a share of the largest
            answer.
        accuracy: share of right answers on the given images, and the ends of its 95 % interval.
        agreement: share of the given images that it answers with the first runtime's class.
    """

    runtime: str
    refused: str = ""
    preparation: float | None = None
    latency: float | None = None
    latency95: float | None = None
    throughput: float | None = None
    memory: int | None = None
    file_size: int | None = None
    difference: float | None = None
    accuracy: tuple[float, float, float] | None = None
    agreement: float | None = None


@dataclass(frozen=True)
class Benchmark:
    """One classifier, run in several ways.

    Attributes:
        model: its name.
        shape: of the timed images, ``(C, H, W)``.
        batch_size: of the batches that throughput was measured with.
        rounds: how often each was timed, all in turn.
        images: how many images accuracy was measured on; 0 without data.
        figures: a runtime an entry, in the order asked for.
        provenance: versions, machine and date.
    """

    model: str
    shape: tuple[int, ...]
    batch_size: int
    rounds: int
    images: int
    figures: tuple[RuntimeFigures, ...]
    provenance: Mapping[str, str]

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON; times in seconds, memory and files in bytes, shares as fractions."""
        return {"schema": SCHEMA, **dataclasses.asdict(self)}


def benchmark(
    model: Model,
    data: Data = "",
    *,
    runtimes: Sequence[str] = tuple(RUNTIMES),
    batch_size: int = 32,
    rounds: int = 15,
    memory: bool = True,
    selection: ImageSelection = ImageSelection(),
    inputs: InputOptions = InputOptions(),
    out: Path | str | None = None,
    progress: Progress = silent,
) -> Benchmark:
    """Runs a classifier in PyTorch, compiled and exported, and holds speed, memory and answers side by side.

    All runtimes are timed in turn on the same random images, round by round, so that a machine whose speed
    drifts does so for all: compare within one table only. Each uses as many threads as it takes by itself.

    Args:
        model: what :func:`nearfar.load_classifier` takes.
        data: labelled images, as :func:`nearfar.audit` takes them: then accuracy and agreement are measured
            on them, at scale 1.
        runtimes: ``eager`` (the network in PyTorch), ``compiled`` (``torch.compile``), ``program``
            (``torch.export``), ``onnx`` (onnxruntime), ``openvino``. What cannot be run is listed with the
            reason.
        batch_size: images a batch, for throughput and memory.
        rounds: how often each is timed, at least 3.
        memory: measure memory too, in a process for each runtime.
        selection: which of the images.
        inputs: what the model does not say about its images.
        out: a JSON file to write.
        progress: called after each runtime and round.

    Returns:
        Figures of each runtime.

    Raises:
        InputError: a model that cannot be opened, an unknown runtime, none that can be run, or numbers out of
            range.
    """
    _check(runtimes, batch_size, rounds)
    opened = load_classifier(model, **dataclasses.asdict(inputs))
    with tempfile.TemporaryDirectory(prefix="nearfar-benchmark-") as folder:
        work = _Work(opened, _file_of(model), Path(folder), batch_size, rounds, progress)
        rows = work.measured(runtimes)
        if memory:
            rows = work.with_memory(rows, _openable(model, inputs))
        images = 0
        if data:
            rows, images = work.with_accuracy(rows, data, selection)
    result = Benchmark(
        *(opened.name, work.shape, batch_size, rounds, images, tuple(rows.values())),
        {**versions(), "machine": machine(), "date": today()},
    )
    if out is not None:
        write_atomically(Path(out), json.dumps(result.as_dict(), indent=1) + "\n")
    return result


def _check(runtimes: Sequence[str], batch_size: int, rounds: int) -> None:
    unknown = [name for name in runtimes if name not in RUNTIMES]
    if unknown or not runtimes or len(set(runtimes)) < len(runtimes):
        raise InputError(
            f"runtimes are some of {', '.join(RUNTIMES)}, each once, got {', '.join(runtimes) or 'none'}"
        )
    if batch_size < 1 or rounds < 3:
        raise InputError(
            f"batch_size must be at least 1 and rounds at least 3, got {batch_size} and {rounds}"
        )


def _file_of(model: Model) -> Path | None:
    """The exported file that a model is."""
    if not isinstance(model, str | Path):
        return None
    path = Path(model)
    return path if path.suffix.lower() in FORMATS and path.is_file() else None


def _openable(model: Model, inputs: InputOptions) -> dict[str, Any] | None:
    """What another process needs to open the same model; ``None`` where it cannot."""
    if not isinstance(model, str | Path):
        return None
    return {"model": str(model), **dataclasses.asdict(inputs)}


class _Work:
    """The measuring of one classifier."""

    def __init__(
        self,
        opened: Classifier,
        file: Path | None,
        folder: Path,
        batch_size: int,
        rounds: int,
        progress: Progress,
    ) -> None:
        self._opened, self._file, self._folder = opened, file, folder
        self._rounds, self._progress = rounds, progress
        if file is not None and format_of(file).is_ours(file):
            shutil.copy(file, self._exported(file.suffix.lower()))
        spec = opened.input_spec
        self.shape = (spec.in_chans, *spec.protocol.canvas_size)
        draw = torch.Generator().manual_seed(0)
        self._batch = torch.rand(batch_size, *self.shape, generator=draw)
        self._answers: dict[str, LogitsFunction] = {}

    def _exported(self, ending: str) -> Path:
        return self._folder / f"model{ending}"

    def measured(self, runtimes: Sequence[str]) -> dict[str, RuntimeFigures]:
        """Preparation, answers and times.

        Raises:
            InputError: no runtime can be run.
        """
        rows, logits = {}, {}
        for number, name in enumerate(runtimes):
            self._progress(Step("preparing", number, len(runtimes), name))
            try:
                rows[name], logits[name] = self._prepared(name)
            except Exception as cause:  # whatever a network makes exporters and compilers trip over
                if isinstance(cause, MemoryError):
                    raise
                rows[name] = RuntimeFigures(name, first_line(cause))
        if not logits:
            reasons = "; ".join(f"{name}: {row.refused}" for name, row in rows.items())
            raise InputError(f"{self._opened.name} can be run in none of these ways: {reasons}")
        first = next(iter(logits.values()))
        largest = float(first.abs().max()) or 1.0
        times = self._timed()
        for name, answer in logits.items():
            single, batches = times[name]
            rows[name] = dataclasses.replace(
                rows[name],
                difference=float((answer - first).abs().max()) / largest,
                latency=statistics.median(single),
                latency95=statistics.quantiles(single, n=20, method="inclusive")[-1],
                throughput=len(self._batch) / statistics.median(batches),
            )
        return rows

    def _prepared(self, name: str) -> tuple[RuntimeFigures, Tensor]:
        runtime = RUNTIMES[name]
        runtime.check_installed()
        start = time.perf_counter()
        if self._file is not None and _ENDINGS.get(name) == self._file.suffix.lower():
            answer: LogitsFunction = self._opened.predict
            file: Path | None = self._file
        else:
            answer, file = runtime.prepare(self._opened, self._folder)
        answer(self._batch[:1])
        seconds = time.perf_counter() - start
        logits = answer(self._batch)
        self._answers[name] = answer
        size = None if file is None else file.stat().st_size
        return RuntimeFigures(name, preparation=seconds, file_size=size), logits

    def _timed(self) -> dict[str, tuple[list[float], list[float]]]:
        """Seconds of single images and of batches, all runtimes in turn; each met both sizes before."""
        times: dict[str, tuple[list[float], list[float]]] = {n: ([], []) for n in self._answers}
        for done in range(self._rounds):
            self._progress(Step("timing", done, self._rounds))
            for name, answer in self._answers.items():
                for seconds, images in zip(
                    times[name], (self._batch[:1], self._batch), strict=True
                ):
                    start = time.perf_counter()
                    answer(images)
                    seconds.append(time.perf_counter() - start)
        return times

    def with_memory(
        self, rows: dict[str, RuntimeFigures], openable: dict[str, Any] | None
    ) -> dict[str, RuntimeFigures]:
        """Peak memory of each runtime, in a process of its own."""
        for number, name in enumerate(self._answers):
            self._progress(Step("measuring memory", number, len(self._answers), name))
            file = self._exported(_ENDINGS.get(name, ".onnx"))
            exported = name not in ("eager", "compiled") and file.exists()
            if openable is None and not exported:
                continue
            job = {
                "runtime": name,
                "folder": str(self._folder),
                "open": {"model": str(file)} if exported else openable,
                "shape": list(self._batch.shape),
            }
            rows[name] = dataclasses.replace(rows[name], memory=_memory_of(job))
        return rows

    def with_accuracy(
        self, rows: dict[str, RuntimeFigures], data: Data, selection: ImageSelection
    ) -> tuple[dict[str, RuntimeFigures], int]:
        """Right answers and agreement on images, as an audit at scale 1 shows them."""
        spec = self._opened.input_spec
        models = {
            name: Classifier(spec, answer, checkpoint=self._opened.checkpoint)
            for name, answer in self._answers.items()
        }
        results = audit(
            models, data, AuditSpec(scales=(1.0,)), selection=selection, progress=self._progress
        ).results
        first = next(iter(results.values())).curve
        for name, result in results.items():
            curve = result.curve
            same = curve.predictions == first.predictions
            rows[name] = dataclasses.replace(
                rows[name],
                accuracy=(curve.accuracy(1.0), *curve.interval(1.0)),
                agreement=float(same.double().mean()),
            )
        return rows, len(first.labels)


def _memory_of(job: dict[str, Any]) -> int | None:
    """What a process of its own needs at most; ``None`` where it ends without an answer."""
    command = [sys.executable, "-m", "nearfar.deploy.runtime_memory", json.dumps(job)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 (our own module)
    lines = done.stdout.splitlines()
    return int(lines[-1]) if done.returncode == 0 and lines and lines[-1].isdigit() else None
