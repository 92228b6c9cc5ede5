"""Checkpoints on the hub of Hugging Face, and in folders laid out as its repositories are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelHubMixin

from nearfar.atomic import make_folder, write_atomically
from nearfar.classifiers import Classifier, InputSpec
from nearfar.classifiers.hub_files import (
    WEIGHTS_NAME,
    fetched_weights,
    from_hub,
    is_hub_folder,
)
from nearfar.classifiers.networks import from_checkpoint
from nearfar.deploy.model_card import model_card
from nearfar.errors import InputError
from nearfar.training.checkpoint import read_record

__all__ = ["HubClassifier", "from_pretrained", "push_to_hub", "save_pretrained"]


class HubClassifier(ModelHubMixin, library_name="nearfar"):
    """A checkpoint with the methods that huggingface_hub gives models.

    ``save_pretrained(folder)`` writes ``model.safetensors`` (the checkpoint, byte for byte),
    ``config.json`` (its input spec) and, where there is none, ``README.md`` (a model card with the figures);
    ``push_to_hub(repo_id)`` sends the same; ``from_pretrained(folder or repo_id)`` opens them.

    Args:
        checkpoint: what ``nearfar train`` or ``nearfar convert`` wrote.

    Attributes:
        classifier: the opened checkpoint.

    Raises:
        InputError: as :func:`nearfar.load_checkpoint` does.
    """

    def __init__(self, checkpoint: str | Path) -> None:
        self.path = Path(checkpoint)
        self.classifier = from_checkpoint(self.path)

    @property
    def input_spec(self) -> InputSpec:
        """How images become its input, and what its answers stand for."""
        return self.classifier.input_spec

    def _save_pretrained(self, save_directory: Path) -> None:
        make_folder(save_directory)
        target = save_directory / WEIGHTS_NAME
        if target.exists():
            try:
                read_record(target)
            except InputError as cause:
                raise InputError(
                    f"{target} holds weights that are not nearfar's; choose another folder"
                ) from cause
        write_atomically(save_directory / WEIGHTS_NAME, self.path.read_bytes())
        write_atomically(save_directory / "config.json", self.input_spec.as_json())

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        **model_kwargs: Any,
    ) -> HubClassifier:
        if model_kwargs:
            raise InputError(
                f"the weights say themselves what they belong to; leave out {', '.join(model_kwargs)}"
            )
        folder = Path(model_id)
        if folder.is_dir() and is_hub_folder(folder):
            return cls(folder / WEIGHTS_NAME)
        return cls(
            fetched_weights(
                model_id,
                revision,
                token=token,
                cache_dir=cache_dir,
                force_download=force_download,
                local_files_only=local_files_only,
            )
        )

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """The model card; arguments as of :func:`nearfar.deploy.model_card.model_card`."""
        assert self.classifier.checkpoint is not None, "it comes from one"
        return ModelCard(model_card(self.classifier.checkpoint, *args, **kwargs))


def save_pretrained(
    checkpoint: str | Path,
    folder: str | Path,
    *,
    license: str | None = None,  # noqa: A002
) -> Path:
    """Writes a checkpoint as a folder that the hub, and :func:`from_pretrained`, understand.

    Args:
        checkpoint: what ``nearfar train`` or ``nearfar convert`` wrote.
        folder: made where it is not there; a ``README.md`` in it is kept as it is.
        license: of the weights, for the model card, such as ``mit``.

    Returns:
        The folder.

    Raises:
        InputError: not a checkpoint, or a file in the folder's way.
    """
    folder = Path(folder)
    classifier = HubClassifier(checkpoint)
    make_folder(folder)
    classifier.save_pretrained(
        folder, model_card_kwargs={"repository": str(folder), "license": license}
    )
    return folder


def push_to_hub(
    checkpoint: str | Path,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    branch: str | None = None,
    create_pr: bool = False,
    license: str | None = None,  # noqa: A002
    commit_message: str = "Weights, input_spec and figures, written by nearfar",
) -> str:
    """Puts a checkpoint on the hub of Hugging Face, in one commit.

    Args:
        checkpoint: what ``nearfar train`` or ``nearfar convert`` wrote.
        repo_id: ``OWNER/NAME``; made where it is not there.
        private: who may see a new repository; default: the owner's setting.
        token: default: ``HF_TOKEN``, or what ``hf auth login`` kept.
        branch: default: ``main``.
        create_pr: propose the commit instead of making it.
        license: of the weights, for the model card, such as ``mit``.
        commit_message: says so in the history.

    Returns:
        The commit's address.

    Raises:
        InputError: not a checkpoint, a bad name, no rights, or the hub cannot be reached.
    """
    classifier = HubClassifier(checkpoint)
    try:
        return str(
            classifier.push_to_hub(
                repo_id,
                commit_message=commit_message,
                private=private,
                token=token,
                branch=branch,
                create_pr=create_pr,
                model_card_kwargs={"repository": f"hub:{repo_id}", "license": license},
            )
        )
    except InputError:
        raise
    # The client raises errors of three packages, its own, the network's and the system's.
    except Exception as cause:
        reason = " ".join(str(cause).split()) or type(cause).__name__
        raise InputError(
            f"{repo_id} on the hub cannot be written: {reason}; mend the name (OWNER/NAME), or give a token "
            f"that may write there (HF_TOKEN, or hf auth login)"
        ) from cause


def from_pretrained(repository: str | Path, *, revision: str | None = None) -> Classifier:
    """Opens a classifier from the hub, or from a folder that :func:`save_pretrained` wrote.

    Args:
        repository: ``OWNER/NAME``, or the folder.
        revision: branch, tag or commit of a repository.

    Raises:
        InputError: nothing there, the hub cannot be reached, or weights that nearfar has not written.
    """
    return from_hub(repository, revision)
