"""Training through Lightning: one way for recipes, the quickstart and everything to come."""

from nearfar.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from nearfar.training.fit import train, train_given
from nearfar.training.given import Given
from nearfar.training.network import make_network
from nearfar.training.options import with_options
from nearfar.training.specs import FitSpec, ModelSpec, Recipe, TrainerSpec
from nearfar.training.velocity import Velocity

__all__ = [
    "Checkpoint",
    "FitSpec",
    "Given",
    "ModelSpec",
    "Recipe",
    "TrainerSpec",
    "Velocity",
    "load_checkpoint",
    "make_network",
    "save_checkpoint",
    "train",
    "train_given",
    "with_options",
]
