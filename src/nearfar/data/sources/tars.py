"""Images inside tar files, read where they lie; nothing is unpacked."""

from __future__ import annotations

import io
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from nearfar.data.sources.files import ENDINGS, file_identity
from nearfar.data.sources.listing import Listing
from nearfar.errors import InputError

__all__ = ["Member", "shard_listing", "tar_listing"]

_PARTS = ("train", "val", "validation", "valid", "test")


@dataclass(frozen=True)
class Member:
    """A file in a tar file: where its bytes are."""

    tar: Path
    name: str
    start: int
    size: int

    def open(self) -> IO[bytes]:
        """Its content."""
        with self.tar.open(
            "rb"
        ) as file:  # anew each time: processes and threads share no place in it
            file.seek(self.start)
            return io.BytesIO(file.read(self.size))

    def __str__(self) -> str:
        return f"{self.tar}:{self.name}"


def tar_listing(root: Path | None) -> tuple[Listing[Member], str]:
    """A tar file, or a folder of tar files, with a folder a class.

    A tar file stands for a folder of its name: ``train.tar`` with ``CLASS/x.jpg``, ``train/CLASS.tar``
    with ``x.jpg``, and one tar file with ``train/CLASS/x.jpg`` are the same. Parts are those of a folder;
    folders that all files share are passed over.

    Returns:
        The listing, and what identifies the files' content.

    Raises:
        InputError: no tar file; one that is damaged, compressed, or has members that lead out of it;
            fewer than two classes; or a class that only the test part has.
    """
    tars = _tars(root)
    found: list[tuple[tuple[str, ...], Member]] = []
    for tar in tars:
        above = () if tar == root else tar.relative_to(root or "").with_suffix("").parts
        for name, member in _members(tar):
            if name.suffix.lower() in ENDINGS and not name.name.startswith("."):
                found.append(((*above, *name.parts[:-1]), member))
    found.sort(key=lambda entry: (entry[0], entry[1].name))
    while (
        found and len({place[:1] for place, _ in found}) == 1 and all(len(p) > 1 for p, _ in found)
    ):
        found = [(place[1:], member) for place, member in found]
    first = {place[0] for place, _ in found if len(place) > 1}
    parted = "train" in first and len(first) > 1 and first <= set(_PARTS)
    labelled = []
    for place, member in found:
        part, kind = (place[0], place[1:2]) if parted and len(place) > 1 else ("train", place[:1])
        if not kind:
            raise InputError(
                f"{member} lies in no folder that would name its class; put it into one"
            )
        labelled.append((part, kind[0], member))
    return _listing(labelled, root), file_identity(tars, "tar")


def shard_listing(root: Path | None) -> tuple[Listing[Member], str]:
    """Shards as the webdataset package writes them: ``KEY.jpg`` (or another image) beside ``KEY.cls``.

    Shards whose names begin with ``train``, ``val`` or ``test`` are that part; where none begin so, all
    are one. ``KEY.cls`` holds the class's number from 0; ``classes.txt`` beside the shards may name
    the classes, a line each.

    Returns:
        The listing, and what identifies the files' content.

    Raises:
        InputError: no shard; one that is damaged, compressed, or has members that lead out of it; an
            image without a class; a number that is none, or that has no name.

    Limits:
        Shards are files of this machine; ``http://…`` and ``pipe:…`` are not read.
    """
    tars = _tars(root)
    prefixes = ("train", "val", "test")
    parted = any(tar.name.startswith("train") for tar in tars)
    labelled: list[tuple[str, int, Member]] = []
    for tar in tars:
        part = next((p for p in prefixes if parted and tar.name.startswith(p)), "train")
        images, numbers = {}, {}
        for name, member in _members(tar):
            stem, _, ending = name.name.partition(".")
            key = str(name.parent / stem)
            if f".{ending.lower()}" in ENDINGS:
                images[key] = member
            elif ending.lower() == "cls":
                numbers[key] = member
        for key, member in images.items():
            if key not in numbers:
                raise InputError(f"{member} has no class: {key}.cls is not beside it; add it")
            text = numbers[key].open().read().decode(errors="replace").strip()
            if not text.isdecimal():
                raise InputError(
                    f"{numbers[key]} must hold a class's number from 0, got {text[:20]!r}"
                )
            labelled.append((part, int(text), member))
    highest = max((number for _, number, _ in labelled), default=0)
    names = [str(i) for i in range(highest + 1)]
    said = tars[0].parent / "classes.txt"
    if said.is_file():
        names = [
            line.strip() for line in said.read_text(encoding="utf-8").splitlines() if line.strip()
        ]
        if highest >= len(names):
            raise InputError(
                f"{said} names {len(names)} classes, but the shards have the class {highest}; name each"
            )
    return _parts(labelled, tuple(names)), file_identity(
        [*tars, *([said] if said.is_file() else [])], "wds"
    )


def _listing(labelled: list[tuple[str, str, Member]], root: Path | None) -> Listing[Member]:
    taught = {kind for part, kind, _ in labelled if part != _test_part(labelled)}
    names = sorted(taught)
    if len(names) < 2:
        raise InputError(
            f"{root} needs images in at least two folders, one a class, got {len(names)}"
            f"{f' ({names[0]})' if names else ''}"
        )
    number = {name: i for i, name in enumerate(names)}
    for part, kind, member in labelled:
        if kind not in number:
            raise InputError(
                f"{member} is of the class {kind}, which only {part} has; add training images of it, or "
                f"remove it"
            )
    return _parts([(part, number[kind], member) for part, kind, member in labelled], tuple(names))


def _parts(labelled: list[tuple[str, int, Member]], names: tuple[str, ...]) -> Listing[Member]:
    """The training part first, then the test part."""
    test = _test_part(labelled)
    training = [entry for entry in labelled if entry[0] != test]
    tested = [entry for entry in labelled if entry[0] == test]
    both = training + tested
    return Listing(
        [member for _, _, member in both],
        [number for _, number, _ in both],
        names,
        len(training) if tested else None,
    )


def _test_part(
    labelled: list[tuple[str, str, Member]] | list[tuple[str, int, Member]],
) -> str | None:
    """As with folders: ``test`` where there is one, else what is there for validation."""
    there = {part for part, _, _ in labelled} - {"train"}
    if not there:
        return None
    return "test" if "test" in there else max(there, key=_PARTS.index)


def _tars(root: Path | None) -> list[Path]:
    tars = [root] if root and root.is_file() else sorted(root.rglob("*.tar")) if root else []
    if not tars:
        raise InputError(
            f"this source needs as its root a .tar file, or a folder with some in it, got {root}"
        )
    return tars


def _members(tar: Path) -> Iterator[tuple[PurePosixPath, Member]]:
    """Files in a tar file, each with its path inside; links and paths that lead out of it are refused."""
    seen: Counter[str] = Counter()
    try:
        # "r:", not "r": what is compressed cannot be read from the middle.
        with tarfile.open(tar, "r:") as archive:
            for info in archive:
                name = PurePosixPath(info.name)
                if name.is_absolute() or ".." in name.parts or not (info.isfile() or info.isdir()):
                    raise InputError(
                        f"{tar} holds {info.name!r}, which is a link, a device, or a path that leads out of "
                        f"it; an archive of images needs none: pack it afresh without"
                    )
                seen[info.name] += 1
                if seen[info.name] > 1 and info.isfile():
                    raise InputError(f"{tar} holds {info.name!r} twice; pack it afresh")
                if info.isfile():
                    yield name, Member(tar, info.name, info.offset_data, info.size)
    except (tarfile.TarError, OSError, EOFError) as cause:
        raise InputError(
            f"{tar} is no whole, uncompressed tar file: {cause}; unpack compressed ones with gunzip or the "
            f"like, and fetch damaged ones again"
        ) from cause
