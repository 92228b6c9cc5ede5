"""Anybody's image classifier, opened by one name and asked in one way."""

from nearfar.recognisers.card import Card
from nearfar.recognisers.opening import Model, open_recogniser
from nearfar.recognisers.recogniser import Recogniser

__all__ = ["Card", "Model", "Recogniser", "open_recogniser"]
