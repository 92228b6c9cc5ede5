"""Images with labels, and the scale protocols that train and test on them."""

from nearfar.data.lesson import Lesson
from nearfar.data.module import ScaleData
from nearfar.data.normalise import Normalisation, Normalised
from nearfar.data.protocol import ScaleProtocol
from nearfar.data.protocols import SCENARIOS, mnist_scale, scenario
from nearfar.data.sources import LabelledImages, list_sources, load_source
from nearfar.data.spec import DataSpec

__all__ = [
    "SCENARIOS",
    "DataSpec",
    "LabelledImages",
    "Lesson",
    "Normalisation",
    "Normalised",
    "ScaleData",
    "ScaleProtocol",
    "list_sources",
    "load_source",
    "mnist_scale",
    "scenario",
]
