"""The networks, one family a file, registered with timm."""

from nearfar.models.cnn_small import SmallCNN
from nearfar.models.hierarchical import HierarchicalNet
from nearfar.models.registry import create_model, list_models
from nearfar.models.staged import StagedBackbone
from nearfar.models.wsms import WSMSNet

__all__ = [
    "HierarchicalNet",
    "SmallCNN",
    "StagedBackbone",
    "WSMSNet",
    "create_model",
    "list_models",
]
