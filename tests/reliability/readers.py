"""Every reader of files that someone else may have written, each with a whole file to begin from."""

from __future__ import annotations

import functools
import io
import json
import random
import struct
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import whole_files
from PIL import Image
from reliability import mutations

import nearfar
from nearfar.cli.parsing import parse_call
from nearfar.data import DataSpec, ScaleProtocol, load_source
from nearfar.data.boxes import load_boxes
from nearfar.experiments import external_results, running
from nearfar.experiments.reproduce import find_table
from nearfar.experiments.tables.table import RunResult
from nearfar.experiments.writing import TableStatus, as_json
from nearfar.training import FitSpec, ModelSpec, train

READERS: dict[str, Reader] = {}
NETWORK = whole_files.NETWORK
ROOT = Path(__file__).parent.parent.parent


@dataclass(frozen=True)
class Reader:
    """What is read.

    ``prepare(draw, folder)`` writes mutated files and returns what ``read`` takes; ``warm()`` does once what
    whole files need, so that imports and models are there before a process forks.
    """

    name: str
    prepare: Callable[[Any, Path], Any]
    read: Callable[[Any], Any]
    warm: Callable[[], Any]


def reader(name, read):
    """Decorator of a function ``(draw, folder) -> inputs``."""

    def enter(prepare):
        READERS[name] = Reader(name, prepare, read, lambda: _warm(prepare, read))
        return prepare

    return enter


def _warm(prepare, read):
    real = {name: value for name, value in vars(mutations).items() if name.startswith("mutated_")}
    for name in real:
        setattr(
            mutations,
            name,
            lambda draw, content: content.encode() if isinstance(content, str) else content,
        )
    try:
        with tempfile.TemporaryDirectory() as folder:
            read(prepare(random.Random(0), Path(folder)))
    finally:
        for name, value in real.items():
            setattr(mutations, name, value)


def _written(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


# ------------------------------------------------------------ images


@functools.cache
def image_files():
    """Whole images of many kinds: (ending, bytes)."""
    files = []
    for kind, mode, options in (
        ("jpg", "RGB", {}), ("jpg", "L", {}), ("jpg", "CMYK", {}), ("jpg", "RGB", {"progressive": True}),
        ("png", "RGB", {}), ("png", "RGBA", {}), ("png", "P", {}), ("png", "1", {}), ("png", "I;16", {}),
        ("png", "LA", {}), ("gif", "P", {}), ("bmp", "RGB", {}), ("webp", "RGB", {}), ("webp", "RGBA", {}),
        ("tif", "RGB", {}), ("tif", "RGB", {"compression": "tiff_lzw"}), ("ppm", "RGB", {}),
    ):  # fmt: skip
        out = io.BytesIO()
        exif = Image.Exif()
        exif[0x0112] = 6
        if kind == "jpg":
            options = {**options, "exif": exif}
        name = {"jpg": "JPEG", "tif": "TIFF", "ppm": "PPM"}.get(kind, kind.upper())
        whole_files.photo(mode=mode).save(out, name, **options)
        files.append((kind, out.getvalue()))
    for size in ((1, 1), (1, 3000), (3000, 1)):
        out = io.BytesIO()
        whole_files.photo(*size).save(out, "PNG")
        files.append(("png", out.getvalue()))
    frames = [whole_files.photo(mode="P"), whole_files.photo(9, 9, mode="P")]
    out = io.BytesIO()
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:])
    files.append(("gif", out.getvalue()))
    return files


def _predict(path):
    (prediction,) = nearfar.predict(whole_files.classifier(), path)
    assert prediction.error or prediction.label
    assert "\n" not in (prediction.error or "")
    if prediction.error:
        raise nearfar.InputError(prediction.error)


@reader("images", _predict)
def _(draw, folder):
    kind, content = draw.choice(image_files())
    return _written(folder / f"x.{kind}", mutations.mutated_bytes(draw, content))


# ------------------------------------------------------------ datasets


def _load(arguments):
    data = load_source(*arguments)
    data.images[torch.arange(min(2, len(data.labels)))]


@reader("idx", _load)
def _(draw, folder):
    images = np.random.default_rng(0).integers(0, 256, (6, 5, 4), dtype=np.uint8).tobytes()
    victim = draw.randrange(4)
    files = {
        "train-images-idx3-ubyte": struct.pack(">IIII", 2051, 6, 5, 4) + images,
        "train-labels-idx1-ubyte": struct.pack(">II", 2049, 6) + bytes(range(6)),
        "t10k-images-idx3-ubyte": struct.pack(">IIII", 2051, 6, 5, 4) + images,
        "t10k-labels-idx1-ubyte": struct.pack(">II", 2049, 6) + bytes(range(6)),
    }
    for index, (name, content) in enumerate(files.items()):
        content = mutations.mutated_bytes(draw, content) if index == victim else content
        _written(folder / "MNIST" / "raw" / name, content)
    return "mnist", folder


@functools.cache
def small_png(value=0):
    """A small image."""
    out = io.BytesIO()
    Image.new("RGB", (4, 3), (value, 9, 9)).save(out, "PNG")
    return out.getvalue()


@functools.cache
def class_archive():
    """A tar file with a folder a class."""
    return whole_files.archive(
        [(f"{kind}/{i}.png", small_png(i)) for kind in ("cat", "dog") for i in range(3)]
    )


@functools.cache
def shard():
    """A shard as webdataset writes it."""
    pairs = [[(f"{i}.png", small_png(i)), (f"{i}.cls", str(i % 2).encode())] for i in range(4)]
    return whole_files.archive([entry for pair in pairs for entry in pair])


@reader("tar", _load)
def _(draw, folder):
    return "stream_tar", _written(folder / "x.tar", mutations.mutated_tar(draw, class_archive()))


@reader("shards", _load)
def _(draw, folder):
    _written(folder / "x.tar", mutations.mutated_tar(draw, shard()))
    if draw.randrange(4) == 0:
        _written(folder / "classes.txt", mutations.mutated_lines(draw, "cat\ndog\n"))
    return "stream_wds", folder


@reader("annotations", _load)
def _(draw, folder):
    wnids = ["n01", "n02"]
    texts = {
        "wnids.txt": "n01\nn02\n",
        "words.txt": "n01\tcat, house cat\nn02\tdog\n",
        "val/val_annotations.txt": "".join(
            f"val_{i}.png\t{wnids[i % 2]}\t0\t0\t1\t1\n" for i in range(4)
        ),
    }
    victim = draw.choice(list(texts))
    for name, text in texts.items():
        content = mutations.mutated_lines(draw, text) if name == victim else text.encode()
        _written(folder / name, content)
    for wnid in wnids:
        _written(folder / "train" / wnid / "images" / "a.png", _side_64())
    for i in range(4):
        _written(folder / "val" / "images" / f"val_{i}.png", _side_64())
    return "tiny_imagenet", folder


@functools.cache
def _side_64():
    out = io.BytesIO()
    Image.new("RGB", (64, 64)).save(out, "PNG")
    return out.getvalue()


def _load_boxes(file):
    found = load_boxes(
        file, None, crop=True, class_names=("cat", "dog"), num_classes=2, max_skipped=0.9
    )
    assert len(found.boxes)


@reader("boxes_coco", _load_boxes)
def _(draw, folder):
    content = {
        "images": [{"id": i, "file_name": f"{i}.png", "height": 17, "width": 23} for i in range(4)],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [
            {
                "id": i,
                "image_id": i,
                "category_id": 1 + i % 2,
                "bbox": [1, 2, 8 + i, 9],
                "iscrowd": 0,
            }
            for i in range(4)
        ],
    }
    for i in range(4):
        _written(folder / f"{i}.png", whole_files.png(whole_files.photo()))
    return _written(folder / "boxes.json", mutations.mutated_json(draw, json.dumps(content)))


@reader("boxes_csv", _load_boxes)
def _(draw, folder):
    lines = [f"{i}.png,{('cat', 'dog')[i % 2]},1,2,{8 + i},9\n" for i in range(4)]
    for i in range(4):
        _written(folder / f"{i}.png", whole_files.png(whole_files.photo()))
    text = "path,label,x,y,w,h\n" + "".join(lines)
    return _written(folder / "boxes.csv", mutations.mutated_lines(draw, text))


# ------------------------------------------------------------ networks


def _open(word):
    opened = nearfar.load_classifier(word)
    opened.predict(
        torch.zeros(1, opened.input_spec.in_chans, *opened.input_spec.protocol.canvas_size)
    )


@reader("checkpoints", _open)
def _(draw, folder):
    return _written(
        folder / "x.safetensors", mutations.mutated_safetensors(draw, whole_files.checkpoint())
    )


@functools.cache
def state_file():
    """What ``torch.save`` writes of a training script's state."""
    out = io.BytesIO()
    network = nearfar.create_model(NETWORK, num_classes=10, in_chans=1)
    torch.save({"state_dict": network.state_dict(), "epoch": 3, "arch": "x"}, out)
    return out.getvalue()


@functools.cache
def odd_states():
    """Files of other content than a state dict of a network: each is whole."""
    network = nearfar.create_model(NETWORK, num_classes=10, in_chans=1)
    state = network.state_dict()
    files = []
    for content in (
        {1: torch.zeros(2)}, {"a": {1: {2: torch.zeros(1)}}}, [1, 2], None, torch.zeros(3), {},
        state | {2: 1},
        {k: v.to_sparse() if v.dim() == 2 else v for k, v in state.items()},
        {k: torch.nan_to_num(v).half() for k, v in state.items()},
        {k: v.to(torch.complex64) if v.is_floating_point() else v for k, v in state.items()},
        {k: v.unsqueeze(0) for k, v in state.items()}, {k: v.expand(2, *v.shape) for k, v in state.items()},
        {("a", 1): torch.zeros(1), **state}, {k: torch.zeros((), dtype=torch.int8) for k in state},
        {k: torch.empty(v.shape, device="meta") for k, v in state.items()},
    ):  # fmt: skip
        out = io.BytesIO()
        torch.save(content, out)
        files.append(out.getvalue())
    return files


@reader("pickles", lambda path: _open(f"{NETWORK}@{path}"))
def _(draw, folder):
    content = state_file()
    if draw.randrange(8) == 0:
        content = draw.choice(odd_states())
    return _written(folder / "x.pth", mutations.mutated_zip(draw, content))


@reader("onnx", _open)
def _(draw, folder):
    return _written(folder / "x.onnx", mutations.mutated_bytes(draw, whole_files.exported(".onnx")))


@functools.cache
def plain_onnx():
    """An ONNX file without nearfar's input spec, beside which one lies."""
    import onnx

    model = onnx.load_from_string(whole_files.exported(".onnx"))
    del model.metadata_props[:]
    return model.SerializeToString()


@reader("input_specs", _open)
def _(draw, folder):
    spec = whole_files.classifier().input_spec.as_json()
    _written(folder / "x.onnx.json", mutations.mutated_json(draw, spec))
    return _written(folder / "x.onnx", plain_onnx())


@reader("programs", _open)
def _(draw, folder):
    return _written(folder / "x.pt2", mutations.mutated_zip(draw, whole_files.exported(".pt2")))


@functools.cache
def transformers_folder():
    """A tiny vision transformer's folder."""
    import transformers

    config = transformers.ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, image_size=16,
        patch_size=8, num_labels=3,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        transformers.ViTForImageClassification(config).save_pretrained(folder)
        files = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
    processor = {
        "image_processor_type": "ViTImageProcessor", "do_resize": True, "size": {"height": 16, "width": 16},
        "resample": 2, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True,
        "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
    }  # fmt: skip
    return {**files, "preprocessor_config.json": json.dumps(processor).encode()}


@reader("transformers", _open)
def _(draw, folder):
    files = dict(transformers_folder())
    victim = draw.choice(
        ["config.json", "config.json", "preprocessor_config.json", "model.safetensors"]
    )
    if victim.endswith(".json"):
        files[victim] = mutations.mutated_json(draw, files[victim].decode())
    else:
        files[victim] = mutations.mutated_bytes(draw, files[victim])
    for name, content in files.items():
        _written(folder / name, content)
    return folder


# ------------------------------------------------------------ our own records

_DATA = DataSpec("digits", protocol=ScaleProtocol(8, 8), train=20, validation=10, test=10)
_FIT = FitSpec(epochs=2, batch_size=10)


@functools.cache
def interrupted_run():
    """Files of a run whose weights were never written."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        train(ModelSpec(NETWORK), _DATA, _FIT, out=out)
        (out / "weights.safetensors").unlink()
        return {
            str(path.relative_to(out)): path.read_bytes()
            for path in out.rglob("*")
            if path.is_file()
        }


@reader("interrupted_runs", lambda out: train(ModelSpec(NETWORK), _DATA, _FIT, out=out))
def _(draw, folder):
    files = dict(interrupted_run())
    victim = draw.choice(sorted(files))
    if victim.endswith(".ckpt") and draw.randrange(2):
        content = torch.load(io.BytesIO(files[victim]), weights_only=True)
        out = io.BytesIO()
        torch.save(_mutated_state(draw, content), out)
        files[victim] = out.getvalue()
    elif victim.endswith(".ckpt"):
        files[victim] = mutations.mutated_zip(draw, files[victim])
    elif victim.endswith(".yaml"):
        files[victim] = mutations.mutated_yaml(draw, files[victim].decode())
    else:
        files[victim] = mutations.mutated_lines(draw, files[victim].decode())
    for name, content in files.items():
        _written(folder / "run" / name, content)
    return folder / "run"


def _mutated_state(draw, state):
    """One value in a state, at any depth, becomes another."""
    places = list(mutations._places(state))
    for _ in range(draw.choice((1, 1, 2))):
        holder, key = draw.choice(places)
        value = holder[key]
        if isinstance(value, torch.Tensor) and draw.randrange(2):
            options = (value.unsqueeze(0), value.flatten()[:1], value.to(torch.complex64), value.double(),
                       value * float("nan"), torch.zeros(0), value.to(torch.int8))  # fmt: skip
            holder[key] = draw.choice(options)
        elif draw.randrange(4) == 0:
            del holder[key]
            break
        else:
            holder[key] = draw.choice(
                [
                    v
                    for v in mutations.ODD_VALUES
                    if v is None or isinstance(v, int | float | str | list | dict)
                ]
            )
    return state


TABLE = "invariance"


@functools.cache
def results_file():
    """A ``results.json`` of today's recipes, with the figures of the committed one."""
    table, runs = find_table(TABLE, False)
    committed = ROOT / "results" / TABLE / "results.json"
    figures = {(m.row, m.seed): m for m in external_results._read(table, committed)}
    measured = []
    for run in runs:
        old = figures.get((run.row, run.recipe.seed))
        if old is not None:
            provenance = {
                **old.provenance,
                "recipe": run.recipe.as_dict(),
                "measure": table.version,
            }
            measured.append(replace(old, provenance=provenance))
    status = TableStatus("nearfar reproduce", False, 0)
    return json.dumps(as_json(table, table.rows(measured), status))


def _reproduce(folder):
    nearfar.reproduce(
        TABLE, folder / "out", folder / "work", now=True, result_files=(folder / "results.json",)
    )


@reader("results", _reproduce)
def _(draw, folder):
    return _written(folder / "results.json", mutations.mutated_json(draw, results_file())).parent


def _finished(folder):
    table, runs = find_table(TABLE, True)
    running.finished(table, runs[0], folder)


@functools.cache
def measurement():
    """What a finished run's measurement is written down as."""
    table, runs = find_table(TABLE, True)
    provenance = {"recipe": runs[0].recipe.as_dict(), "measure": table.version, "machine": "x"}
    provenance |= {"date": "2026-01-01", "versions": {"torch": "2"}}
    values = {column.key: 1.0 for column in table.columns}
    result = RunResult(runs[0].row, runs[0].recipe.seed, values, 1, 1, provenance)
    return json.dumps(asdict(result))


@reader("measurements", _finished)
def _(draw, folder):
    table, runs = find_table(TABLE, True)
    _written(folder / runs[0].folder / "weights.safetensors", b"")
    content = mutations.mutated_json(draw, measurement())
    _written(running._file(table, runs[0], folder), content)
    return folder


# ------------------------------------------------------------ configurations


def _parse(words):
    parse_call(train, [str(word) for word in words], "")


@reader("configs", _parse)
def _(draw, folder):
    recipes = sorted((ROOT / "recipes").glob("*.yaml"))
    text = draw.choice(recipes).read_text(encoding="utf-8")
    return ["--config", _written(folder / "x.yaml", mutations.mutated_yaml(draw, text))]


@reader("command_lines", _parse)
def _(draw, folder):
    words = ["--model.name", "cnn_small", "--fit.epochs", "3", "--data", "digits", "--seed", "1"]
    words += ["--data.protocol.train_scales", "[0.5,1,2]", "--fit.lr=0.1", "--trainer.compile"]
    words = mutations.mutated_words(draw, [*words, "--out", str(folder / "x")])
    return [word for word in words if word not in ("-h", "--help") and not word.endswith(".help")]
