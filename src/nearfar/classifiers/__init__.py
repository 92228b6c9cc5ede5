"""Anybody's image classifier, opened by one name and asked in one way."""

from nearfar.classifiers.classifier import Classifier
from nearfar.classifiers.input_spec import Answers, InputOptions, InputSpec
from nearfar.classifiers.loading import Model, load_classifier

__all__ = ["Answers", "Classifier", "InputOptions", "InputSpec", "Model", "load_classifier"]
