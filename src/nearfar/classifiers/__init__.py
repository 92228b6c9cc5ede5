"""Anybody's image classifier, opened by one name and asked in one way."""

from nearfar.classifiers.classifier import Classifier
from nearfar.classifiers.input_spec import InputSpec
from nearfar.classifiers.loading import InputOptions, Model, load_classifier

__all__ = ["Classifier", "InputOptions", "InputSpec", "Model", "load_classifier"]
