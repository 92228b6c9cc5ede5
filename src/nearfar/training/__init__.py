"""Training through Lightning: one way for recipes, the quickstart and conversions."""

from nearfar.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint, with_options
from nearfar.training.network import make_network
from nearfar.training.optimisation import PaperSGD
from nearfar.training.specs import FitSpec, ModelSpec, Recipe, TrainerSpec
from nearfar.training.train import train, train_recipe

__all__ = [
    "Checkpoint",
    "FitSpec",
    "ModelSpec",
    "PaperSGD",
    "Recipe",
    "TrainerSpec",
    "load_checkpoint",
    "make_network",
    "save_checkpoint",
    "train",
    "train_recipe",
    "with_options",
]
