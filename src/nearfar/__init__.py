"""nearfar: image recognisers that know a thing whether it is near or far."""


from nearfar import functional, pyramid
from nearfar.data import DataSpec, ScaleProtocol
from nearfar.errors import InputError
from nearfar.layers import PyramidConv2d, ScaleConv2d, ScalePool, SIConv2d
from nearfar.models import HierarchicalNet, WSMSNet, create_model, list_models
from nearfar.pyramid import Pyramid
from nearfar.scale_sets import scales
from nearfar.training import FitSpec, ModelSpec, TrainerSpec, load_checkpoint, train
from nearfar.version import __version__

__all__ = [
    "DataSpec",
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
    "create_model",
    "functional",
    "list_models",
    "load_checkpoint",
    "pyramid",
    "scales",
    "train",
]
