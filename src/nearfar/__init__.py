"""nearfar: image classifiers that know a thing whether it is near or far.

Each name is imported when it is first used, so that ``import nearfar`` is quick. The networks are
registered with timm as soon as timm is imported, before nearfar or after it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nearfar._lazy import lazy_names
from nearfar._timm_names import register_with_timm
from nearfar.errors import InputError
from nearfar.version import __version__

if TYPE_CHECKING:
    from nearfar import functional, pyramid
    from nearfar.auditing.audit import audit
    from nearfar.classifiers import load_classifier
    from nearfar.counting import count
    from nearfar.data import DataSpec, ScaleProtocol
    from nearfar.deploy.benchmark import benchmark
    from nearfar.deploy.convert import convert
    from nearfar.deploy.export import export
    from nearfar.deploy.hub import from_pretrained, push_to_hub, save_pretrained
    from nearfar.deploy.predict import predict
    from nearfar.deploy.wrap import wrap
    from nearfar.experiments.quickstart import quickstart
    from nearfar.experiments.reproduce import reproduce
    from nearfar.layers import (
        DilatedScaleConv2d,
        DiscoConv2d,
        GaussianDerivativeConv2d,
        GaussianScaleSpace,
        PyramidConv2d,
        RieszConv2d,
        ScaleConv2d,
        ScalePool,
        SiCNNConv2d,
        SIConv2d,
        SteerableConv2d,
    )
    from nearfar.models import (
        FCN,
        Ensemble,
        HierarchicalNet,
        WSMSNet,
        create_model,
        list_models,
        load_weights,
    )
    from nearfar.peers import joined_peers
    from nearfar.pyramid import Pyramid
    from nearfar.scale_sets import scales
    from nearfar.training import FitSpec, ModelSpec, TrainerSpec, load_checkpoint
    from nearfar.training.train import train

__all__ = [
    "FCN",
    "DataSpec",
    "Ensemble",
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
    "DilatedScaleConv2d",
    "DiscoConv2d",
    "GaussianDerivativeConv2d",
    "GaussianScaleSpace",
    "RieszConv2d",
    "SiCNNConv2d",
    "SteerableConv2d",
    "WSMSNet",
    "__version__",
    "audit",
    "benchmark",
    "convert",
    "count",
    "create_model",
    "export",
    "from_pretrained",
    "functional",
    "joined_peers",
    "list_models",
    "load_checkpoint",
    "load_classifier",
    "load_weights",
    "predict",
    "push_to_hub",
    "pyramid",
    "quickstart",
    "reproduce",
    "save_pretrained",
    "scales",
    "train",
    "wrap",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "nearfar": "auditing counting data functional kernels layers models pyramid classifiers deploy "
        "pretrained training",
        "nearfar.auditing": "audit",
        "nearfar.counting": "count",
        "nearfar.data": "DataSpec ScaleProtocol",
        "nearfar.experiments.quickstart": "quickstart",
        "nearfar.experiments.reproduce": "reproduce",
        "nearfar.layers": "PyramidConv2d ScaleConv2d ScalePool SIConv2d DilatedScaleConv2d DiscoConv2d "
        "GaussianDerivativeConv2d GaussianScaleSpace RieszConv2d SiCNNConv2d SteerableConv2d",
        "nearfar.models": "FCN Ensemble HierarchicalNet WSMSNet create_model list_models load_weights",
        "nearfar.peers": "joined_peers",
        "nearfar.pyramid": "Pyramid",
        "nearfar.classifiers": "load_classifier",
        "nearfar.scale_sets": "scales",
        "nearfar.deploy": "benchmark convert export from_pretrained predict push_to_hub save_pretrained wrap",
        "nearfar.training": "FitSpec ModelSpec TrainerSpec load_checkpoint train",
    },
)
register_with_timm()
