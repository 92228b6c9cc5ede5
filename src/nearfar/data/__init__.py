"""Images with labels, and the scale protocols that train and test on them."""

from nearfar.data.datamodule import ScaleDataModule
from nearfar.data.image_dataset import LabelledImages
from nearfar.data.normalization import Normalisation, Normalised
from nearfar.data.preprocess import Preprocess
from nearfar.data.protocol import ScaleProtocol
from nearfar.data.protocols import SCENARIOS, mnist_scale, scenario
from nearfar.data.soft_labels import SoftLabels
from nearfar.data.sources import list_sources, load_source, register_index, register_source
from nearfar.data.spec import DataSpec

__all__ = [
    "SCENARIOS",
    "DataSpec",
    "LabelledImages",
    "Normalisation",
    "Normalised",
    "Preprocess",
    "ScaleDataModule",
    "ScaleProtocol",
    "SoftLabels",
    "list_sources",
    "load_source",
    "mnist_scale",
    "register_index",
    "register_source",
    "scenario",
]
