"""Images inside tar files, read where they lie; nothing is unpacked."""

from __future__ import annotations

import functools
import io
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from nearfar.data.image_files import IMAGE_SUFFIXES, file_identity, is_hidden
from nearfar.data.image_index import ImageIndex
from nearfar.data.sources.parts import FolderContent, Parts, folder_shaped, named_parts, shard_part
from nearfar.data.sources.registry import register_index
from nearfar.errors import InputError
from nearfar.records import short_repr

__all__ = ["TarMember", "shard_index", "shard_parts", "tar_index", "tar_parts"]

#: A class's number in a shard: a list of names that long is made for it.
_HIGHEST = 999_999
#: Bytes of a file that holds such a number.
_LONGEST_NUMBER = 64
# Where an image lies, folder by folder, and the image.
_Placed = tuple[tuple[str, ...], "TarMember"]


@dataclass(frozen=True)
class TarMember:
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


def tar_index(root: Path | None) -> tuple[ImageIndex, str]:
    """A tar file, or a folder of tar files, with a folder a class.

    A tar file stands for a folder of its name: ``train.tar`` with ``CLASS/x.jpg``, ``train/CLASS.tar``
    with ``x.jpg``, and one tar file with ``train/CLASS/x.jpg`` are the same. Parts are those of a folder;
    folders that all files share are passed over, and so are hidden ones.

    Returns:
        The index, and what identifies the files' content.

    Raises:
        InputError: no tar file; one that is damaged, compressed, or has members that lead out of it;
            folders that may be parts or classes; fewer than two classes; or a class that only the test
            part has.
    """
    identity, members = _placed(root)
    parts = _folder_parts(members, root)
    of_parts = () if parts is None else (*parts.training, parts.test)
    labelled = []
    for folders, member in members:
        has_part = folders[:1] and folders[0] in of_parts
        part, kind = (folders[0], folders[1:2]) if has_part else ("", folders[:1])
        if not kind:
            raise InputError(
                f"{member} lies in no folder that would name its class; put it into one"
            )
        labelled.append((part, kind[0], member))
    return _index(labelled, parts, root), identity


def tar_parts(root: Path | None) -> Parts | None:
    """The parts that :func:`tar_index` tells apart; ``None`` where there are none.

    Raises:
        InputError: as :func:`tar_index` does of files, parts and classes.
    """
    return _folder_parts(_placed(root)[1], root)


def _folder_parts(members: Sequence[_Placed], root: Path | None) -> Parts | None:
    direct = {folders[0] for folders, _ in members if len(folders) == 1}
    below: dict[str, set[str]] = {folders[0]: set() for folders, _ in members if folders}
    for folders, _ in members:
        if len(folders) > 1:
            below[folders[0]].add(folders[1])
    inside = {
        name: FolderContent(name in direct, frozenset(names)) for name, names in below.items()
    }
    return folder_shaped(inside, root)


def _placed(root: Path | None) -> tuple[str, Sequence[_Placed]]:
    """What identifies the tar files' content, and their images by where they lie."""
    tars = _tars(root)
    identity = file_identity(tars, "tar")
    return identity, _images(tuple(tars), root, identity)


@functools.lru_cache(maxsize=1)  # parts are asked for before images, and archives can be long
def _images(tars: tuple[Path, ...], root: Path | None, identity: str) -> tuple[_Placed, ...]:
    members: list[_Placed] = []
    for tar in tars:
        above = () if tar == root else tar.relative_to(root or "").with_suffix("").parts
        for name, member in _members(tar):
            image = name.suffix.lower() in IMAGE_SUFFIXES and not name.name.startswith(".")
            if image and not any(map(is_hidden, name.parts[:-1])):
                members.append(((*above, *name.parts[:-1]), member))
    members.sort(key=lambda entry: (entry[0], entry[1].name))
    while (
        members
        and len({folders[:1] for folders, _ in members}) == 1
        and all(len(p) > 1 for p, _ in members)
    ):
        members = [(folders[1:], member) for folders, member in members]
    return tuple(members)


def shard_index(root: Path | None) -> tuple[ImageIndex, str]:
    """Shards as the webdataset package writes them: ``KEY.jpg`` (or another image) beside ``KEY.cls``.

    Shards whose names have a word such as ``train``, ``val`` or ``test``, or begin so, are that part;
    where none have, all are one. ``KEY.cls`` holds the class's number from 0; ``classes.txt`` beside
    the shards may name the classes, a line each.

    Returns:
        The index, and what identifies the files' content.

    Raises:
        InputError: no shard; one that is damaged, compressed, or has members that lead out of it; an
            image without a class; a number that is none, or that has no name; or shards of which only
            some name their part.

    Limits:
        Shards are files of this machine; ``http://…`` and ``pipe:…`` are not read.
    """
    tars = _tars(root)
    parts = _shard_parts(tars, root)
    labelled: list[tuple[str, int, TarMember]] = []
    for tar in tars:
        part = shard_part(tar.stem) or ""
        images, numbers = {}, {}
        for name, member in _members(tar):
            stem, _, ending = name.name.partition(".")
            key = str(name.parent / stem)
            if f".{ending.lower()}" in IMAGE_SUFFIXES:
                images[key] = member
            elif ending.lower() == "cls":
                numbers[key] = member
        for key, member in images.items():
            if key not in numbers:
                raise InputError(f"{member} has no class: {key}.cls is not beside it; add it")
            labelled.append((part, _class_number(numbers[key]), member))
    highest = max((number for _, number, _ in labelled), default=0)
    names = [str(i) for i in range(highest + 1)]
    names_file = tars[0].parent / "classes.txt"
    if names_file.is_file():
        names = _class_names(names_file)
        if highest >= len(names):
            raise InputError(
                f"{names_file} names {len(names)} classes, but the shards have the class {highest}; name each"
            )
    return _parts(labelled, tuple(names), parts), file_identity(
        [*tars, *([names_file] if names_file.is_file() else [])], "wds"
    )


def _class_number(member: TarMember) -> int:
    text = member.open().read(_LONGEST_NUMBER).decode(errors="replace").strip()
    if not text.isdecimal() or int(text) > _HIGHEST:
        raise InputError(
            f"{member} must hold a class's number from 0 to {_HIGHEST}, got {short_repr(text)}"
        )
    return int(text)


def _class_names(file: Path) -> list[str]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as cause:
        raise InputError(f"{file} is not text: {cause}; write a class's name a line") from cause
    return [line.strip() for line in lines if line.strip()]


def shard_parts(root: Path | None) -> Parts | None:
    """The parts that :func:`shard_index` tells apart; ``None`` where there are none.

    Raises:
        InputError: no shard, or shards of which only some name their part.
    """
    return _shard_parts(_tars(root), root)


def _shard_parts(tars: list[Path], root: Path | None) -> Parts | None:
    kinds = {shard_part(tar.stem): tar for tar in tars}
    if len(kinds) == 1 and "train" not in kinds:
        return None
    if None in kinds or "train" not in kinds:
        names = ", ".join(sorted(tar.name for tar in kinds.values()))
        raise InputError(
            f"{root} needs shards that all name their part, one of them train, or none, got {names}; "
            f"name them train-0000.tar, val-0000.tar and test-0000.tar, or leave the others out"
        )
    return named_parts((str(kind) for kind in kinds), root)


def _index(
    labelled: list[tuple[str, str, TarMember]], parts: Parts | None, root: Path | None
) -> ImageIndex:
    taught = {kind for part, kind, _ in labelled if parts is None or part != parts.test}
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
    numbered = [(part, number[kind], member) for part, kind, member in labelled]
    return _parts(numbered, tuple(names), parts)


def _parts(
    labelled: list[tuple[str, int, TarMember]], names: tuple[str, ...], parts: Parts | None
) -> ImageIndex:
    """The training part first, then the test part."""
    training, tested = labelled, labelled[:0]
    if parts is not None:
        training = [entry for name in parts.training for entry in labelled if entry[0] == name]
        tested = [entry for entry in labelled if entry[0] == parts.test]
    members = training + tested
    return ImageIndex(
        [member for _, _, member in members],
        [number for _, number, _ in members],
        names,
        len(training) if tested else None,
    )


def _tars(root: Path | None) -> list[Path]:
    tars = [root] if root and root.is_file() else sorted(root.rglob("*.tar")) if root else []
    tars = [
        t for t in tars if t == root or not any(map(is_hidden, t.relative_to(root or "").parts))
    ]
    if not tars:
        raise InputError(
            f"this source needs as its root a .tar file, or a folder with some in it, got {root}"
        )
    return tars


def _members(tar: Path) -> Iterator[tuple[PurePosixPath, TarMember]]:
    """Files in a tar file, each with its path inside; links and paths that lead out of it are refused."""
    counts: Counter[str] = Counter()
    try:
        length = tar.stat().st_size
        # "r:", not "r": what is compressed cannot be read from the middle.
        with tarfile.open(tar, "r:") as archive:
            for info in archive:
                name = PurePosixPath(info.name)
                if name.is_absolute() or ".." in name.parts or not (info.isfile() or info.isdir()):
                    raise InputError(
                        f"{tar} holds {info.name!r}, which is a link, a device, or a path that leads out of "
                        f"it; an archive of images needs none: pack it afresh without"
                    )
                if info.issparse() or not 0 <= info.size <= length - info.offset_data:
                    raise InputError(
                        f"{tar} holds {info.name!r}, which is sparse or longer than the archive; pack it "
                        f"afresh"
                    )
                counts[info.name] += 1
                if counts[info.name] > 1 and info.isfile():
                    raise InputError(f"{tar} holds {info.name!r} twice; pack it afresh")
                if info.isfile():
                    yield name, TarMember(tar, info.name, info.offset_data, info.size)
    # The reader of headers checks few of the numbers and texts in them.
    except (
        tarfile.TarError,
        OSError,
        EOFError,
        ValueError,
        OverflowError,
        RecursionError,
    ) as cause:
        if isinstance(cause, InputError):
            raise
        raise InputError(
            f"{tar} is no whole, uncompressed tar file: {cause}; unpack compressed ones with gunzip or the "
            f"like, and fetch damaged ones again"
        ) from cause


def _has_test(parts: Parts | None) -> bool:
    return parts is not None and parts.test is not None


register_index("stream_tar", lambda root: _has_test(tar_parts(root)))(tar_index)
register_index("stream_wds", lambda root: _has_test(shard_parts(root)))(shard_index)
