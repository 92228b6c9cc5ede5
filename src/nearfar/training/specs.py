"""A training run as plain data: what a recipe's YAML holds."""

from __future__ import annotations

import dataclasses
import numbers
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from nearfar.conversion import ConversionMethod, as_method
from nearfar.data import DataSpec, Normalisation
from nearfar.errors import InputError
from nearfar.records import as_dataclass, as_typed
from nearfar.training.fit_spec import FitSpec

__all__ = ["FitSpec", "ModelSpec", "Recipe", "TrainerSpec", "check_tensorboard"]


@dataclass(frozen=True)
class ModelSpec:
    """Which network.

    Args:
        name: a name from ``nearfar.list_models()`` or ``timm.list_models()``.
        options: the model's own options, such as ``scales``.
        weights: from where its weights come: a file (``.safetensors``, or a pickle of tensors), or
            ``pretrained`` for those that timm or torchvision publish. Default: random ones.
        mean, std: of each channel, of values from 0 to 1: what images are normalised by before they meet
            the network, where its weights were trained so. Not with ``data.normalize``.
        convert: into which scale-aware twin it is made, its weights kept: a conversion method, its name, or
            its record (``{"method": "si", "scales": [0.75, 1]}``).

    Raises:
        InputError: options that cannot be written down, ``mean`` without ``std``, or a conversion that does
            not exist or has other settings.
    """

    name: str = "cnn_small"
    options: dict[str, Any] = field(default_factory=dict)
    weights: str | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    convert: ConversionMethod | dict[str, Any] | str | None = None

    def __post_init__(self) -> None:
        """Options as YAML and JSON can hold them, so that every run can be written down."""
        reserved = {"num_classes", "in_chans"} & self.options.keys()
        if reserved:
            raise InputError(
                f"{' and '.join(sorted(reserved))} of a model come from the data; leave them out of "
                f"its options"
            )
        object.__setattr__(self, "options", _plain(self.options))
        for name in ("mean", "std"):
            object.__setattr__(self, name, tuple(float(x) for x in getattr(self, name)))
        self.normalisation()
        if self.convert is not None:
            object.__setattr__(self, "convert", as_method(self.convert))

    @property
    def conversion(self) -> ConversionMethod | None:
        """The method that ``convert`` names."""
        return None if self.convert is None else as_method(self.convert)

    def normalisation(self) -> Normalisation | None:
        """Of ``mean`` and ``std``; ``None`` where they are left out."""
        return Normalisation(self.mean, self.std) if self.mean or self.std else None


@dataclass(frozen=True)
class TrainerSpec:
    """On what to train, and what is written meanwhile.

    Args:
        accelerator: ``auto``, ``cpu``, ``gpu``, …
        devices: how many devices of each machine, or ``auto``; one process each.
        num_nodes: how many machines.
        strategy: how several processes work together: ``ddp`` (``auto`` takes it too),
            ``ddp_find_unused_parameters_true`` for networks that do not always use all weights, or
            ``fsdp``, which shares the weights out and needs GPUs (not measured on a GPU).
        precision: ``32-true``, ``bf16-mixed``, … as ``lightning.Trainer`` has it.
        compile: run the network through ``torch.compile``.
        save_every: also save after every so many updates within an epoch, so that an interrupted
            run loses no more than that. Default: at the end of each epoch only.
        tensorboard: log for TensorBoard too, into ``tensorboard/`` (needs ``nearfar[logs]``).
        peer_timeout: with ``ddp``: seconds that a process waits for the others at a batch, before it ends the
            run with a message. More where one of them may be busy longer, such as with compiling.

    Raises:
        InputError: ``save_every`` or ``peer_timeout`` below 1.
    """

    accelerator: str = "cpu"
    devices: int | str = 1
    num_nodes: int = 1
    strategy: str = "auto"
    precision: str = "32-true"
    compile: bool = False
    save_every: int | None = None
    tensorboard: bool = False
    peer_timeout: int = 45

    def __post_init__(self) -> None:
        if not isinstance(self.peer_timeout, int) or self.peer_timeout < 1:
            raise InputError(f"peer_timeout must be at least 1 second, got {self.peer_timeout}")
        every = self.save_every
        if every is not None and (not isinstance(every, int) or every < 1):
            raise InputError(
                f"save_every must be at least 1 update, got {every}; leave it out to save at the end "
                f"of each epoch only"
            )


def check_tensorboard(spec: TrainerSpec) -> None:
    """Refuses to log for TensorBoard where it is missing; a net that was trained with it loads anywhere.

    Raises:
        InputError: TensorBoard is asked for and not installed.
    """
    if spec.tensorboard and find_spec("tensorboard") is None:
        raise InputError(
            "tensorboard=True needs TensorBoard, which is not installed: pip install 'nearfar[logs]'"
        )


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the outcome of a training run.

    Raises:
        InputError: images normalised twice.
    """

    model: ModelSpec
    data: DataSpec
    fit: FitSpec
    seed: int
    trainer: TrainerSpec

    def __post_init__(self) -> None:
        if self.model.mean and self.data.normalize != "none":
            raise InputError(
                f"images are normalised by model.mean and model.std or by data.normalize, not by both; got "
                f"mean={self.model.mean} and normalize={self.data.normalize!r}; leave one out"
            )

    def as_dict(self) -> dict[str, Any]:
        """As nested plain data, ready for JSON and YAML."""
        plain = dataclasses.asdict(self)
        conversion = self.model.conversion
        plain["model"]["convert"] = None if conversion is None else conversion.as_dict()
        return dict(_plain(plain))

    def as_yaml(self) -> str:
        """As the configuration file of ``nearfar train``."""
        return yaml.safe_dump(self.as_dict(), sort_keys=False, allow_unicode=True)

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Recipe:
        """The inverse of :meth:`as_dict`.

        Raises:
            InputError: a part is missing or has another form.
        """
        try:
            # Nothing stands for a split that is left out: which images were trained on depends on it.
            for part, key in (("data", "split"), ("data", "protocol")):
                if key not in as_typed(dict[str, Any], record.get(part), part):
                    raise InputError(f"{part} lacks {key}")
            return as_dataclass(cls, record, "recipe")
        except (AttributeError, InputError) as cause:
            raise InputError(f"not a record of a nearfar training run: {cause}") from cause


def _plain(value: Any) -> Any:
    """A value as JSON knows it; arrays, fractions and paths become lists, numbers and strings."""
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if hasattr(value, "tolist"):  # arrays and their scalars
        return _plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    if isinstance(value, Path):
        return str(value)
    raise InputError(
        f"{value!r} cannot be written to a configuration; give numbers, strings, lists and dictionaries"
    )
