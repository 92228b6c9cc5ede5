from __future__ import annotations

import errno
import io
import pickle
import tarfile

import pytest
import torch
from pictures import folder, noise

from nearfar.data import DataSpec, ScaleDataModule, ScaleProtocol, load_source, module
from nearfar.data.augmentation import Colours
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


def held(data):
    return data.images[torch.arange(len(data.images))]


def same(one, other):
    assert one.class_names == other.class_names
    assert one.test_from == other.test_from
    assert torch.equal(one.labels, other.labels)
    assert torch.equal(held(one), held(other))


@pytest.fixture
def parts(tmp_path):
    return folder(tmp_path / "images", 12, ("train", "val"))


@pytest.fixture
def whole(parts):
    return load_source("folder", parts, 12)


def test_a_streamed_folder_is_the_folder(parts, whole):
    data = load_source("stream_folder", parts, 12)
    assert not isinstance(data.images, torch.Tensor)
    assert data.images.shape == whole.images.shape
    same(data, whole)
    picked = torch.tensor([7, 0, 7])
    assert torch.equal(data.images[picked], whole.images[picked])
    assert len(data.images[torch.tensor([], dtype=torch.long)]) == 0
    again = pickle.loads(pickle.dumps(data.images))
    assert torch.equal(again[picked], whole.images[picked])


def test_one_tar_with_parts(parts, whole, tmp_path):
    same(load_source("stream_tar", pack(tmp_path / "all.tar", parts), 12), whole)
    shared = pack(tmp_path / "deep.tar", parts, "./photos/")
    same(load_source("stream_tar", shared, 12), whole)


def test_a_tar_a_part_and_a_tar_a_class(parts, whole, tmp_path):
    for part in ("train", "val"):
        pack(tmp_path / "parts" / f"{part}.tar", parts / part)
        for kind in ("cat", "dog"):
            pack(tmp_path / "classes" / part / f"{kind}.tar", parts / part / kind)
    same(load_source("stream_tar", tmp_path / "parts", 12), whole)
    same(load_source("stream_tar", tmp_path / "classes", 12), whole)


def test_a_tar_without_parts(tmp_path):
    root = folder(tmp_path / "images", 10)
    tar = pack(tmp_path / "all.tar", root)
    same(load_source("stream_tar", tar, 12), load_source("folder", root, 12))


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
    same(load_source("stream_wds", shards, 12), whole)
    (shards / "classes.txt").unlink()
    assert load_source("stream_wds", shards, 12).class_names == ("0", "1")
    (shards / "classes.txt").write_text("cat\n")
    with pytest.raises(InputError, match="names 1 classes, but the shards have the class 1"):
        load_source("stream_wds", shards, 12)


def test_a_folder_through_hugging_face_s_datasets(parts, whole, tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets", reason="the package datasets is not installed")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    datasets.disable_progress_bars()
    data = load_source(f"hfds/{parts}", tmp_path / "kept", 12)
    same(data, whole)
    assert torch.equal(
        pickle.loads(pickle.dumps(data.images))[torch.tensor([3])], whole.images[[3]]
    )
    with pytest.raises(InputError, match=r"hfds/.*nowhere cannot be used: "):
        load_source(f"hfds/{tmp_path / 'nowhere'}", None, 12)


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
    data = load_source("stream_folder", parts, 12)
    (parts / "train" / "cat" / "004.png").unlink()
    with pytest.raises(InputError, match=r"004.png can no longer be read \(.*No such file"):
        data.images[torch.arange(12)]


def test_every_image_is_read_once_before_and_the_finding_is_kept(parts, monkeypatch):
    from nearfar.data.sources import streaming

    read = []

    def spy(source, at_least):
        read.append(source)
        return decoded(source, at_least)

    decoded = streaming.decoded
    monkeypatch.setattr(streaming, "decoded", spy)
    load_source("stream_folder", parts, 12)
    assert len(read) == 24
    load_source("stream_folder", parts, 12)
    assert len(read) == 24
    noise(parts / "train" / "cat" / "new.png", 9)
    load_source("stream_folder", parts, 12)
    assert len(read) == 49


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
        load_source(source, tmp_path, 12)


def test_tars_that_cannot_be_used(parts, tmp_path):
    for source in ("stream_tar", "stream_wds"):
        with pytest.raises(
            InputError, match=r"needs as its root a .tar file, or a folder with some"
        ):
            load_source(source, parts, 12)
        with pytest.raises(InputError, match="got None"):
            load_source(source, None, 12)
    tar = pack(tmp_path / "all.tar", parts)
    content = tar.read_bytes()
    cut = content.rstrip(b"\0")[:-600]
    for damaged in (cut, b"no archive" * 100, b""):
        tar.write_bytes(damaged)
        with pytest.raises(InputError, match="is no whole, uncompressed tar file"):
            load_source("stream_tar", tar, 12)
    with tarfile.open(tmp_path / "all.tar", "w:gz") as packed:
        packed.add(parts, "images")
    with pytest.raises(InputError, match="is no whole, uncompressed tar file"):
        load_source("stream_tar", tmp_path / "all.tar", 12)
    only = tmp_path / "only.tar"
    archive(only, ("cat/0.png", tarfile.REGTYPE), ("cat/1.png", tarfile.REGTYPE))
    with pytest.raises(InputError, match=r"at least two folders, one a class, got 1|in no folder"):
        load_source("stream_tar", only, 12)
    archive(only, ("cat/0.png", tarfile.REGTYPE), ("cat/0.png", tarfile.REGTYPE))
    with pytest.raises(InputError, match="holds 'cat/0.png' twice"):
        load_source("stream_tar", only, 12)
    archive(only, ("cat/0.png", tarfile.REGTYPE), ("0.png", tarfile.REGTYPE))
    with pytest.raises(InputError, match=r"0.png lies in no folder that would name its class"):
        load_source("stream_tar", only, 12)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("0.png", "")], r"0.png has no class: 0.cls is not beside it"),
        ([("0.png", ""), ("0.cls", "")], "must hold a class's number from 0, got 'abc'"),
    ],
)
def test_shards_without_classes(tmp_path, members, message):
    archive(tmp_path / "x.tar", *((name, tarfile.REGTYPE) for name, _ in members))
    with pytest.raises(InputError, match=message):
        load_source("stream_wds", tmp_path, 12)


def test_a_class_that_only_the_test_part_has(parts, tmp_path):
    noise(parts / "val" / "emu" / "0.png", 1)
    with pytest.raises(InputError, match="of the class emu, which only val has"):
        load_source("stream_tar", pack(tmp_path / "all.tar", parts), 12)


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
    from nearfar.data.sources import files, streaming

    monkeypatch.setattr(files, "WORTH_KEEPING", 0)
    (parts / "train" / "dog" / "cut.png").write_bytes(b"x")
    broken = parts / "train" / "cat" / "004.png"
    module = files if source == "folder" else streaming
    decoded = module.decoded

    def fails(path, at_least):
        if path == broken:
            raise cause
        return decoded(path, at_least)

    monkeypatch.setattr(module, "decoded", fails)
    first = load_source(source, parts, 12, max_skipped=0.2).skipped
    assert [path.rpartition("/")[2] for path, _ in first] == ["004.png", "cut.png"]
    assert reason in first[0][1]
    monkeypatch.setattr(module, "decoded", decoded)
    again = load_source(source, parts, 12, max_skipped=0.2).skipped
    assert again == first[1:]


def test_a_fault_of_the_content_is_remembered(parts, monkeypatch):
    from nearfar.data.sources import streaming

    whole = (parts / "train" / "cat" / "000.png").read_bytes()
    (parts / "train" / "cat" / "cut.png").write_bytes(whole[:-40])
    (parts / "train" / "cat" / "none.png").write_bytes(b"x")
    found = load_source("stream_folder", parts, 12, max_skipped=0.2).skipped
    assert len(found) == 2
    monkeypatch.setattr(streaming, "decoded", None)
    assert load_source("stream_folder", parts, 12, max_skipped=0.2).skipped == found


def test_classes_without_a_training_image(shards):
    (shards / "classes.txt").write_text("cat\ndog\nemu\n")
    with pytest.raises(
        InputError, match=r"emu: a class that has no training image; .*classes\.txt"
    ):
        load_source("stream_wds", shards, 12)


def test_figures_of_a_long_stream_are_taken_of_a_sample(tmp_path, monkeypatch):
    root = folder(tmp_path / "images", 60)
    given = {"train": 40, "validation": 10, "test": 10, "normalize": "standard", "colour": 0.1}
    stream = ScaleDataModule(DataSpec("stream_folder", root, PROTOCOL, **given))
    memory = ScaleDataModule(DataSpec("folder", root, PROTOCOL, **given))
    assert stream.normalisation() == memory.normalisation()

    monkeypatch.setattr(module, "_SAMPLED", 16)
    whole = memory.normalisation()
    sampled = stream.normalisation()
    assert memory.normalisation() == whole != sampled
    shown = torch.cat(list(stream.in_order("train")))
    labels = stream.labels("train")
    # As many of each class as in all: which ones, a test of stratified_order says.
    which = stratified_order(labels)[:16]
    assert labels[which].bincount().tolist() == [8, 8]
    assert sampled.mean == pytest.approx(shown[which].double().mean((0, 2, 3)).tolist(), rel=1e-6)
    assert stream.colours() != memory.colours()
    assert stream.colours() == Colours.of([shown[which.sort().values]])
