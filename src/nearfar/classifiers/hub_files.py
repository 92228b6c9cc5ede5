"""Classifiers from the hub of Hugging Face, and from folders laid out as its repositories are."""

from __future__ import annotations

from pathlib import Path

from nearfar.classifiers.classifier import Classifier
from nearfar.classifiers.networks import from_checkpoint
from nearfar.errors import InputError

__all__ = ["HUB", "WEIGHTS_NAME", "fetched_weights", "from_hub", "is_hub_folder"]

#: What a word begins with that names a repository: ``hub:OWNER/NAME``, ``hub:OWNER/NAME@REVISION``.
HUB = "hub:"
#: The file of weights in a repository: a checkpoint of ours.
WEIGHTS_NAME = "model.safetensors"


def is_hub_folder(path: Path) -> bool:
    """Whether a folder is laid out as a repository is."""
    return (path / WEIGHTS_NAME).is_file()


def from_hub(repository: str | Path, revision: str | None = None) -> Classifier:
    """Opens what :func:`nearfar.push_to_hub` or ``save_pretrained`` wrote.

    All that the classifier does is said by the one file of weights; ``config.json`` beside it is for
    other readers. It holds tensors and text, nothing that is run.

    Args:
        repository: a folder, or ``OWNER/NAME``, with ``hub:`` before it or not.
        revision: branch, tag or commit of a repository, as ``OWNER/NAME@REVISION`` names it too.

    Raises:
        InputError: nothing there, the hub cannot be reached, or weights that nearfar has not written.
    """
    folder = Path(repository)
    if folder.is_dir():
        if not is_hub_folder(folder):
            raise InputError(
                f"there is no {WEIGHTS_NAME} in {folder}; name a folder that save_pretrained wrote"
            )
        return from_checkpoint(folder / WEIGHTS_NAME)
    name, _, tag = str(repository).removeprefix(HUB).partition("@")
    return from_checkpoint(fetched_weights(name, revision or tag or None))


def fetched_weights(
    name: str,
    revision: str | None = None,
    *,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
) -> Path:
    """A repository's file of weights, fetched once and kept where huggingface_hub keeps what it fetches.

    Args:
        name: ``OWNER/NAME``.
        revision: branch, tag or commit.
        token, cache_dir, force_download, local_files_only: as in ``huggingface_hub.hf_hub_download``.

    Raises:
        InputError: no such repository, no weights in it, or the hub cannot be reached.
    """
    from huggingface_hub import hf_hub_download

    try:
        path = hf_hub_download(
            name,
            WEIGHTS_NAME,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
        )
    # The client raises errors of three packages, its own, the network's and the system's.
    except Exception as cause:
        reason = " ".join(str(cause).split()) or type(cause).__name__
        raise InputError(
            f"{WEIGHTS_NAME} of {HUB}{name} cannot be fetched: {reason}; mend the name (OWNER/NAME, or a "
            f"folder that is there), or set HF_TOKEN for what is private"
        ) from cause
    return Path(path)
