"""nearfar: image recognisers that know a thing whether it is near or far.

``import nearfar`` brings the operators, the layers and the networks (and registers the networks with
timm). Training, auditing and data, which need far more, are imported when first named.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from nearfar import functional, pyramid
from nearfar.errors import InputError
from nearfar.layers import PyramidConv2d, ScaleConv2d, ScalePool, SIConv2d
from nearfar.models import (
    FCN,
    HierarchicalNet,
    WSMSNet,
    create_model,
    list_models,
    load_weights,
)
from nearfar.pyramid import Pyramid
from nearfar.scale_sets import scales
from nearfar.version import __version__

if TYPE_CHECKING:
    from nearfar.auditing import audit
    from nearfar.counting import count
    from nearfar.data import DataSpec, ScaleProtocol
    from nearfar.experiments.quickstart import quickstart
    from nearfar.experiments.reproduce import reproduce
    from nearfar.training import FitSpec, ModelSpec, TrainerSpec, load_checkpoint, train

_LATER = {
    "DataSpec": "nearfar.data",
    "FitSpec": "nearfar.training",
    "ModelSpec": "nearfar.training",
    "ScaleProtocol": "nearfar.data",
    "TrainerSpec": "nearfar.training",
    "audit": "nearfar.auditing",
    "count": "nearfar.counting",
    "load_checkpoint": "nearfar.training",
    "quickstart": "nearfar.experiments.quickstart",
    "reproduce": "nearfar.experiments.reproduce",
    "train": "nearfar.training",
}

__all__ = [
    "DataSpec",
    "FCN",
    "FitSpec",
    "HierarchicalNet",
    "InputError",
    "ModelSpec",
    "Pyramid",
    "PyramidConv2d",
    "SIConv2d",
    "ScaleConv2d",
    "ScalePool",
    "ScaleProtocol",
    "TrainerSpec",
    "WSMSNet",
    "__version__",
    "audit",
    "count",
    "create_model",
    "functional",
    "list_models",
    "load_checkpoint",
    "load_weights",
    "pyramid",
    "quickstart",
    "reproduce",
    "scales",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'nearfar' has no attribute {name!r}")
    value = getattr(importlib.import_module(_LATER[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
