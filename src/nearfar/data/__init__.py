"""Images with labels, and the scale protocols that train and test on them."""

from nearfar.data.module import DataSpec, ScaleData
from nearfar.data.protocol import ScaleProtocol
from nearfar.data.sources import LabelledImages, list_sources, load_source

__all__ = [
    "DataSpec",
    "LabelledImages",
    "ScaleData",
    "ScaleProtocol",
    "list_sources",
    "load_source",
]
