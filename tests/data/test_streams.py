from __future__ import annotations

import errno
import io
import pickle
import tarfile

import pytest
import torch
from pictures import folder, noise

from nearfar.data import (
    DataSpec,
    ScaleDataModule,
    ScaleProtocol,
    datamodule,
    load_source,
    stored_images,
)
from nearfar.data.augmentation import Colours
from nearfar.data.decoding import decode
from nearfar.data.image_dataset import image_sizes
from nearfar.data.splits import stratified_order
from nearfar.errors import InputError

PROTOCOL = ScaleProtocol(canvas=12, content=12, train_scales=(0.5, 1.0), test_scales=(1.0,))


def pack(tar, root, prefix=""):
    """All files below a folder, as an archive."""
    tar.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(tar, "w") as archive:
        for path in sorted(p for p in root.rglob("*") if p.is_file()):
            archive.add(path, f"{prefix}{path.relative_to(root)}")
    return tar


def equal(images, others):
    """Whether images of any sizes are the same."""
    return all(torch.equal(image, other) for image, other in zip(images, others, strict=True))


def same(one, other):
    assert one.class_names == other.class_names
    assert one.test_from == other.test_from
    assert torch.equal(one.labels, other.labels)
    assert torch.equal(image_sizes(one.images), image_sizes(other.images))
    every = torch.arange(len(other.labels))
    assert equal(one.images[every], other.images[every])


@pytest.fixture
def parts(tmp_path):
    root = folder(tmp_path / "images", 12, ("train", "val"))
    noise(root / "train" / "cat" / "006.png", 500, (15, 9))  # one of another size
    return root


@pytest.fixture
def whole(parts):
    return load_source("folder", parts)


def test_a_streamed_folder_is_the_folder(parts, whole):
    data = load_source("stream_folder", parts)
    assert not isinstance(data.images, torch.Tensor)
    assert data.images.channels == whole.images.channels == 3
    same(data, whole)
    picked = torch.tensor([7, 3, 7])
    assert data.images.sizes[picked].tolist() == [[12, 12], [15, 9], [12, 12]]
    assert equal(data.images[picked], whole.images[picked])
    assert len(data.images[torch.tensor([], dtype=torch.long)]) == 0
    again = pickle.loads(pickle.dumps(data.images))
    assert equal(again[picked], whole.images[picked])


def test_one_tar_with_parts(parts, whole, tmp_path):
    same(load_source("stream_tar", pack(tmp_path / "all.tar", parts)), whole)
    shared = pack(tmp_path / "deep.tar", parts, "./photos/")
    same(load_source("stream_tar", shared), whole)


def test_a_tar_a_part_and_a_tar_a_class(parts, whole, tmp_path):
    for part in ("train", "val"):
        pack(tmp_path / "parts" / f"{part}.tar", parts / part)
        for kind in ("cat", "dog"):
            pack(tmp_path / "classes" / part / f"{kind}.tar", parts / part / kind)
    same(load_source("stream_tar", tmp_path / "parts"), whole)
    same(load_source("stream_tar", tmp_path / "classes"), whole)


def test_a_tar_without_parts(tmp_path):
    root = folder(tmp_path / "images", 10)
    tar = pack(tmp_path / "all.tar", root)
    same(load_source("stream_tar", tar), load_source("folder", root))


@pytest.fixture
def shards(parts, whole, tmp_path):
    """What the webdataset package's ShardWriter writes, in two shards a part."""
    webdataset = pytest.importorskip("webdataset", reason="the package webdataset is not installed")
    root = tmp_path / "shards"
    root.mkdir()
    for part in ("train", "val"):
        with webdataset.ShardWriter(f"{root}/{part}-%04d.tar", maxcount=6, verbose=0) as writer:
            for c, kind in enumerate(("cat", "dog")):
                for path in sorted((parts / part / kind).iterdir()):
                    writer.write(
                        {"__key__": f"{kind}/{path.stem}", "png": path.read_bytes(), "cls": c}
                    )
    (root / "classes.txt").write_text("cat\ndog\n")
    return root


def test_webdataset_s_shards(shards, whole):
    assert len(list(shards.glob("*.tar"))) == 4
    same(load_source("stream_wds", shards), whole)
    (shards / "classes.txt").unlink()
    assert load_source("stream_wds", shards).class_names == ("0", "1")
    (shards / "classes.txt").write_text("cat\n")
    with pytest.raises(InputError, match="names 1 classes, but the shards have the class 1"):
        load_source("stream_wds", shards)


def test_a_folder_through_hugging_face_s_datasets(parts, whole, tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets", reason="the package datasets is not installed")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    datasets.disable_progress_bars()
    data = load_source(f"hfds/{parts}", tmp_path / "fetched")
    same(data, whole)
    picked = torch.tensor([3])
    assert equal(pickle.loads(pickle.dumps(data.images))[picked], whole.images[picked])
    with pytest.raises(InputError, match=r"hfds/.*nowhere cannot be used: "):
        load_source(f"hfds/{tmp_path / 'nowhere'}")


@pytest.mark.parametrize("workers", [0, 2])
def test_streams_train_at_the_protocol_s_scales_in_the_order_of_their_seed(parts, workers):
    options = {"split": "official", "validation": 4, "augment": "crop_flip", "pad": 2}
    options |= {"rotate": 20, "shear": 10, "stretch": 1.2}
    streams = ScaleDataModule(
        DataSpec("stream_folder", parts, PROTOCOL, workers=workers, **options), 5, seed=3
    )
    memory = ScaleDataModule(DataSpec("folder", parts, PROTOCOL, **options), 5, seed=3)
    assert streams.in_chans == 3
    one, other = streams.train_dataloader(), memory.train_dataloader()
    for epoch in (0, 1):
        for loader in (one, other):
            loader.sampler.set_epoch(epoch)
        for (images, labels), (expected, there) in zip(one, other, strict=True):
            torch.testing.assert_close(images, expected, rtol=0, atol=1e-6)
            assert torch.equal(labels, there)
    assert torch.equal(streams.images("test", 1.0), memory.images("test", 1.0))


def test_a_file_that_goes_missing_later_is_named(parts):
    data = load_source("stream_folder", parts)
    (parts / "train" / "cat" / "004.png").unlink()
    with pytest.raises(InputError, match=r"004.png can no longer be read \(.*No such file"):
        data.images[torch.arange(12)]


def test_every_image_is_decoded_once_before_and_what_came_out_is_cached(parts, monkeypatch):
    paths = []

    def spy(path):
        paths.append(path)
        return decode(path)

    monkeypatch.setattr(stored_images, "decode", spy)
    first = load_source("stream_folder", parts)
    assert len(paths) == 24
    again = load_source("stream_folder", parts)
    assert len(paths) == 24
    assert torch.equal(first.images.sizes, again.images.sizes)
    noise(parts / "train" / "cat" / "new.png", 9)
    load_source("stream_folder", parts)
    assert len(paths) == 49


def archive(tar, *members):
    """A tar file with members as told: a name, or what makes one odd."""
    with tarfile.open(tar, "w") as file:
        for name, kind in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            info.size = 3 if kind == tarfile.REGTYPE else 0
            info.linkname = "/etc/passwd" if kind != tarfile.REGTYPE else ""
            file.addfile(info, io.BytesIO(b"abc"))


@pytest.mark.parametrize("source", ["stream_tar", "stream_wds"])
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("../out/x.png", tarfile.REGTYPE),
        ("/etc/x.png", tarfile.REGTYPE),
        ("cat/../../x.png", tarfile.REGTYPE),
        ("cat/x.png", tarfile.SYMTYPE),
        ("cat/x.png", tarfile.LNKTYPE),
        ("cat/x", tarfile.CHRTYPE),
    ],
)
def test_members_that_lead_out_of_an_archive_are_refused(tmp_path, source, name, kind):
    archive(tmp_path / "x.tar", ("dog/0.png", tarfile.REGTYPE), (name, kind))
    with pytest.raises(
        InputError, match="which is a link, a device, or a path that leads out of it"
    ):
        load_source(source, tmp_path)


def test_tars_that_cannot_be_used(parts, tmp_path):
    for source in ("stream_tar", "stream_wds"):
        with pytest.raises(
            InputError, match=r"needs as its root a .tar file, or a folder with some"
        ):
            load_source(source, parts)
        with pytest.raises(InputError, match="got None"):
            load_source(source, None)
    tar = pack(tmp_path / "all.tar", parts)
    content = tar.read_bytes()
    cut = content.rstrip(b"\0")[:-600]
    for damaged in (cut, b"no archive" * 100, b""):
        tar.write_bytes(damaged)
        with pytest.raises(InputError, match="is no whole, uncompressed tar file"):
            load_source("stream_tar", tar)
    with tarfile.open(tmp_path / "all.tar", "w:gz") as packed:
        packed.add(parts, "images")
    with pytest.raises(InputError, match="is no whole, uncompressed tar file"):
        load_source("stream_tar", tmp_path / "all.tar")
    only = tmp_path / "only.tar"
    archive(only, ("cat/0.png", tarfile.REGTYPE), ("cat/1.png", tarfile.REGTYPE))
    with pytest.raises(InputError, match=r"at least two folders, one a class, got 1|in no folder"):
        load_source("stream_tar", only)
    archive(only, ("cat/0.png", tarfile.REGTYPE), ("cat/0.png", tarfile.REGTYPE))
    with pytest.raises(InputError, match="holds 'cat/0.png' twice"):
        load_source("stream_tar", only)
    archive(only, ("cat/0.png", tarfile.REGTYPE), ("0.png", tarfile.REGTYPE))
    with pytest.raises(InputError, match=r"0.png lies in no folder that would name its class"):
        load_source("stream_tar", only)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("0.png", "")], r"0.png has no class: 0.cls is not beside it"),
        ([("0.png", ""), ("0.cls", "")], "must hold a class's number from 0 to 999999, got 'abc'"),
    ],
)
def test_shards_without_classes(tmp_path, members, message):
    archive(tmp_path / "x.tar", *((name, tarfile.REGTYPE) for name, _ in members))
    with pytest.raises(InputError, match=message):
        load_source("stream_wds", tmp_path)


def test_a_class_that_only_the_test_part_has(parts, tmp_path):
    noise(parts / "val" / "emu" / "0.png", 1)
    with pytest.raises(InputError, match="of the class emu, which only val has"):
        load_source("stream_tar", pack(tmp_path / "all.tar", parts))


# Faults that pass


@pytest.mark.parametrize(
    ("cause", "reason"),
    [
        (OSError(errno.EMFILE, "Too many open files"), "Too many open files"),
        (PermissionError(errno.EACCES, "Permission denied"), "Permission denied"),
        (MemoryError(), "MemoryError"),
    ],
)
@pytest.mark.parametrize("source", ["folder", "stream_folder"])
def test_a_fault_that_passes_is_not_remembered(parts, monkeypatch, source, cause, reason):
    monkeypatch.setattr(stored_images, "CACHED_FROM", 0)
    (parts / "train" / "dog" / "cut.png").write_bytes(b"x")
    broken = parts / "train" / "cat" / "004.png"
    paths = []

    def fail(path):
        paths.append(path)
        if path == broken:
            raise cause
        return decode(path)

    monkeypatch.setattr(stored_images, "decode", fail)
    first = load_source(source, parts, max_skipped=0.2)
    assert [path.rpartition("/")[2] for path, _ in first.skipped] == ["004.png", "cut.png"]
    assert reason in first.skipped[0][1]
    del paths[:]
    load_source(source, parts, max_skipped=0.2)
    # What is in memory is decoded anew; of a stream, only what may be read by now.
    assert len(paths) == (25 if source == "folder" else 1)
    monkeypatch.setattr(stored_images, "decode", decode)
    again = load_source(source, parts, max_skipped=0.2)
    assert again.skipped == first.skipped[1:]
    assert len(again.labels) == len(first.labels) + 1
    at = torch.tensor([2])  # after 000 and 002
    assert torch.equal(again.images[at][0], decode(broken))
    assert image_sizes(again.images)[at].tolist() == [[12, 12]]


@pytest.mark.parametrize("source", ["folder", "stream_folder"])
def test_a_fault_of_the_content_is_remembered(parts, monkeypatch, source):
    monkeypatch.setattr(stored_images, "CACHED_FROM", 0)
    content = (parts / "train" / "cat" / "000.png").read_bytes()
    (parts / "train" / "cat" / "cut.png").write_bytes(content[:-40])
    (parts / "train" / "cat" / "none.png").write_bytes(b"x")
    skipped = load_source(source, parts, max_skipped=0.2).skipped
    assert len(skipped) == 2
    monkeypatch.setattr(stored_images, "decode", None)
    assert load_source(source, parts, max_skipped=0.2).skipped == skipped


def test_classes_without_a_training_image(shards):
    (shards / "classes.txt").write_text("cat\ndog\nemu\n")
    with pytest.raises(
        InputError, match=r"emu: a class that has no training image; .*classes\.txt"
    ):
        load_source("stream_wds", shards)


def test_figures_of_a_long_stream_are_taken_of_a_sample(tmp_path, monkeypatch):
    root = folder(tmp_path / "images", 60)
    options = {"train": 40, "validation": 10, "test": 10, "normalize": "standard", "colour": 0.1}
    stream = ScaleDataModule(DataSpec("stream_folder", root, PROTOCOL, **options))
    memory = ScaleDataModule(DataSpec("folder", root, PROTOCOL, **options))
    assert stream.normalisation() == memory.normalisation()

    monkeypatch.setattr(datamodule, "_SAMPLED", 16)
    whole = memory.normalisation()
    sampled = stream.normalisation()
    assert memory.normalisation() == whole != sampled
    images = torch.cat(list(stream.in_order("train")))
    labels = stream.labels("train")
    # As many of each class as in all: which ones, a test of stratified_order says.
    which = stratified_order(labels)[:16]
    assert labels[which].bincount().tolist() == [8, 8]
    assert sampled.mean == pytest.approx(images[which].double().mean((0, 2, 3)).tolist(), rel=1e-6)
    assert stream.colours() != memory.colours()
    assert stream.colours() == Colours.of([images[which.sort().values]])
