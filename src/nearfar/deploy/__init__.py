"""Classifiers leave the house: converted, exported, asked about images, put on the hub."""

from nearfar.deploy.conversion_result import ConvertResult
from nearfar.deploy.conversion_settings import CheckSpec, FinetuneSpec
from nearfar.deploy.convert import convert
from nearfar.deploy.export import ExportResult, export
from nearfar.deploy.hub import HubClassifier, from_pretrained, push_to_hub, save_pretrained
from nearfar.deploy.predict import Prediction, predict

__all__ = [
    "CheckSpec",
    "ConvertResult",
    "ExportResult",
    "FinetuneSpec",
    "HubClassifier",
    "Prediction",
    "convert",
    "export",
    "from_pretrained",
    "predict",
    "push_to_hub",
    "save_pretrained",
]
