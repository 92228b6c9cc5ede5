"""Recognisers leave the house: converted, exported, asked about images, put on the hub."""

from nearfar.shipping.conversion_result import ConvertResult
from nearfar.shipping.conversion_settings import CheckSpec, FinetuneSpec, InputOptions
from nearfar.shipping.convert import convert
from nearfar.shipping.export import ExportResult, export
from nearfar.shipping.hub import HubRecogniser, from_pretrained, push_to_hub, save_pretrained
from nearfar.shipping.predict import Prediction, predict

__all__ = [
    "CheckSpec",
    "ConvertResult",
    "ExportResult",
    "FinetuneSpec",
    "HubRecogniser",
    "InputOptions",
    "Prediction",
    "convert",
    "export",
    "from_pretrained",
    "predict",
    "push_to_hub",
    "save_pretrained",
]
