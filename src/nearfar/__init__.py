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
    Committee,
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
    from nearfar.recognisers import open_recogniser
    from nearfar.shipping.convert import convert
    from nearfar.shipping.export import export
    from nearfar.shipping.hub import from_pretrained, push_to_hub, save_pretrained
    from nearfar.shipping.predict import predict
    from nearfar.training import FitSpec, ModelSpec, TrainerSpec, load_checkpoint
    from nearfar.training.train import train

_LATER = {
    "DataSpec": "nearfar.data",
    "FitSpec": "nearfar.training",
    "ModelSpec": "nearfar.training",
    "ScaleProtocol": "nearfar.data",
    "TrainerSpec": "nearfar.training",
    "audit": "nearfar.auditing",
    "convert": "nearfar.shipping",
    "count": "nearfar.counting",
    "export": "nearfar.shipping",
    "from_pretrained": "nearfar.shipping",
    "load_checkpoint": "nearfar.training",
    "open_recogniser": "nearfar.recognisers",
    "predict": "nearfar.shipping",
    "push_to_hub": "nearfar.shipping",
    "quickstart": "nearfar.experiments.quickstart",
    "reproduce": "nearfar.experiments.reproduce",
    "save_pretrained": "nearfar.shipping",
    "train": "nearfar.training",
}

__all__ = [
    "Committee",
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
    "convert",
    "count",
    "create_model",
    "export",
    "from_pretrained",
    "functional",
    "list_models",
    "load_checkpoint",
    "load_weights",
    "open_recogniser",
    "predict",
    "push_to_hub",
    "pyramid",
    "quickstart",
    "reproduce",
    "save_pretrained",
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
