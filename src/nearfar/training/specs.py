"""What a training run is made of, as plain data: what a recipe's YAML holds."""

from __future__ import annotations

import dataclasses
import numbers
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from nearfar.data import DataSpec, ScaleProtocol
from nearfar.errors import InputError
from nearfar.training.fit_spec import FitSpec
from nearfar.training.trainer_spec import TrainerSpec

__all__ = ["FitSpec", "ModelSpec", "Recipe", "TrainerSpec"]


@dataclass(frozen=True)
class ModelSpec:
    """Which network.

    Args:
        name: a name from ``nearfar.list_models()`` or ``timm.list_models()``.
        options: the model's own options, such as ``scales``.
    """

    name: str = "cnn_small"
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Options as YAML and JSON can hold them, so that every run can be written down."""
        taken = {"num_classes", "in_chans"} & self.options.keys()
        if taken:
            raise InputError(
                f"{' and '.join(sorted(taken))} of a model come from the data; leave them out of its options"
            )
        object.__setattr__(self, "options", _plain(self.options))


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the outcome of a training run."""

    model: ModelSpec
    data: DataSpec
    fit: FitSpec
    seed: int
    trainer: TrainerSpec

    def as_dict(self) -> dict[str, Any]:
        """As nested plain data, ready for JSON and YAML."""
        plain: dict[str, Any] = _plain(dataclasses.asdict(self))
        return plain

    def as_yaml(self) -> str:
        """As the configuration file of ``nearfar train``."""
        return yaml.safe_dump(self.as_dict(), sort_keys=False, allow_unicode=True)

    @classmethod
    def from_dict(cls, given: dict[str, Any]) -> Recipe:
        """The inverse of :meth:`as_dict`.

        Raises:
            InputError: a part is missing or has another form.
        """
        try:
            # Fields that came later have defaults under which an older run stays what it was.
            # But split has come to depend on the files; before it was recorded, it was by seed.
            data = {"split": "seed", **given["data"]}
            data["protocol"] = ScaleProtocol(**data["protocol"])
            data["root"] = Path(data["root"]) if data["root"] else None
            return cls(
                ModelSpec(**given["model"]),
                DataSpec(**data),
                FitSpec(**given["fit"]),
                int(given["seed"]),
                TrainerSpec(**given["trainer"]),
            )
        except (KeyError, TypeError) as cause:
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
