"""What a training run is given that no recipe can name."""

from __future__ import annotations

import copy
from dataclasses import dataclass

from torch import nn

from nearfar.data import Lesson
from nearfar.errors import InputError
from nearfar.training.specs import Recipe

__all__ = ["Given"]


@dataclass(frozen=True)
class Given:
    """A network that is there already, and a teacher's answers.

    Attributes:
        network: what to train; it is copied. Default: what the recipe's model names.
        lesson: what images are taught as, in place of their labels.
    """

    network: nn.Module | None = None
    lesson: Lesson | None = None

    def copy(self) -> nn.Module | None:
        """A network of its own to train or to fill, in training mode."""
        return None if self.network is None else copy.deepcopy(self.network).train()

    def check(self, recipe: Recipe) -> None:
        """Refuses settings that do not go with what was given.

        Raises:
            InputError: several processes, which would each need it; or mixed images, which need labels.
        """
        if self.network is None and self.lesson is None:
            return
        if recipe.trainer.devices not in (1, "1") or recipe.trainer.num_nodes != 1:
            raise InputError(
                f"a network given as it is trains in one process, got devices={recipe.trainer.devices} and "
                f"num_nodes={recipe.trainer.num_nodes}; leave them at 1"
            )
        if self.network is not None and recipe.fit.init != "default":
            raise InputError(
                f"fit.init={recipe.fit.init!r} would draw new weights in place of those given; leave it out"
            )
        if self.lesson is not None and (recipe.fit.mixup or recipe.fit.cutmix):
            raise InputError(
                f"mixup and cutmix need labels, and a teacher gives shares; got mixup={recipe.fit.mixup} and "
                f"cutmix={recipe.fit.cutmix}; leave them out"
            )
