"""Training through Lightning: one way for recipes, the quickstart and everything to come."""

from nearfar.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from nearfar.training.fit import train
from nearfar.training.network import make_network
from nearfar.training.specs import FitSpec, ModelSpec, Recipe, TrainerSpec
from nearfar.training.velocity import Velocity

__all__ = [
    "Checkpoint",
    "FitSpec",
    "ModelSpec",
    "Recipe",
    "TrainerSpec",
    "Velocity",
    "load_checkpoint",
    "make_network",
    "save_checkpoint",
    "train",
]
