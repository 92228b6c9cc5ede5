"""Classifiers leave the house: converted, exported, asked about images, put on the hub."""

from nearfar.deploy.benchmark import Benchmark, RuntimeFigures, benchmark
from nearfar.deploy.conversion_result import ConvertResult
from nearfar.deploy.conversion_settings import CheckSpec, FinetuneSpec
from nearfar.deploy.convert import convert
from nearfar.deploy.export import ExportResult, export
from nearfar.deploy.export_looks import export_looks
from nearfar.deploy.hub import HubClassifier, from_pretrained, push_to_hub, save_pretrained
from nearfar.deploy.predict import Prediction, predict
from nearfar.deploy.wrap import wrap
from nearfar.deploy.wrap_result import WrapResult
from nearfar.deploy.wrap_spec import WrapSpec

__all__ = [
    "Benchmark",
    "CheckSpec",
    "ConvertResult",
    "ExportResult",
    "FinetuneSpec",
    "HubClassifier",
    "Prediction",
    "RuntimeFigures",
    "WrapResult",
    "WrapSpec",
    "benchmark",
    "convert",
    "export",
    "export_looks",
    "from_pretrained",
    "predict",
    "push_to_hub",
    "save_pretrained",
    "wrap",
]
