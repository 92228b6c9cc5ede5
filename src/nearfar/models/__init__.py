"""The networks, one family a file, registered with timm."""

from nearfar.models import (  # noqa: F401 (importing a family registers it)
    alexnet,
    cnn_small,
    densenet_cifar,
    digit_cnn,
    four_layer,
    googlenet,
    lenet,
    mlp,
    mnist_scale,
    resnet_cifar,
    scale_layer_digit,
    tiny,
    wsms_zoo,
    zfnet,
)
from nearfar.models.cascade import CascadeNet
from nearfar.models.cnn_small import SmallCNN
from nearfar.models.ensemble import Ensemble
from nearfar.models.fcn import FCN
from nearfar.models.hierarchical import HierarchicalNet, Reduction
from nearfar.models.registry import (
    create_model,
    has_shipped_weights,
    input_size,
    is_ours,
    list_models,
)
from nearfar.models.staged import StagedBackbone, StagedNet
from nearfar.models.weights import load_weights, read_weights
from nearfar.models.wsms import Integration, WSMSNet

__all__ = [
    "FCN",
    "CascadeNet",
    "Ensemble",
    "HierarchicalNet",
    "Integration",
    "Reduction",
    "SmallCNN",
    "StagedBackbone",
    "StagedNet",
    "WSMSNet",
    "create_model",
    "has_shipped_weights",
    "input_size",
    "is_ours",
    "list_models",
    "load_weights",
    "read_weights",
]
