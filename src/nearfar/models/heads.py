"""DenseHead: the dense layers of the older networks, as convolutions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from nearfar.errors import InputError
from nearfar.symbolic_sizes import has_open_size

__all__ = ["DenseHead", "check_grid", "classifier", "only_mean"]


class DenseHead(nn.Module):
    """Dense layers over maps of one size, that also slide over larger maps.

    A dense layer over a grid of h×w positions is a convolution with an h×w kernel that fits once.
    Written so, the head takes larger maps too: it answers at each position and the mean of the
    answers is the answer (Sermanet et al. 2014, "dense evaluation").

    Args:
        in_chs: channels of the maps.
        grid: height and width of the maps at the size that the network was designed for.
        hidden: units of the hidden dense layers; at least one.
        num_classes: classes; 0 leaves the classifier out.
        act: activation after each hidden layer.
        drop_rate: dropout after each hidden layer's activation.

    Shape:
        ``[B, in_chs, h, w]`` or larger → ``[B, num_classes]``; ``pre_logits``: ``[B, hidden[-1]]``.

    Raises:
        InputError: no hidden layer; on the first maps, maps smaller than ``grid``.
    """

    def __init__(
        self,
        in_chs: int,
        grid: tuple[int, int],
        hidden: Sequence[int],
        num_classes: int,
        act: Callable[[], nn.Module] = nn.ReLU,
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__()
        if not hidden:
            raise InputError("a dense head needs at least one hidden layer")
        self.grid = grid
        self.hidden_size = hidden[-1]
        self.hidden = nn.Sequential()
        before, kernel = in_chs, grid
        for width in hidden:
            self.hidden.append(nn.Conv2d(before, width, kernel))
            self.hidden.append(act())
            if drop_rate:
                self.hidden.append(nn.Dropout(drop_rate))
            before, kernel = width, (1, 1)
        self.fc = classifier(before, num_classes)

    def reset(self, num_classes: int, pool_type: str | None = None) -> None:
        """A new classifier; 0 leaves it out. The head's pooling is part of it and cannot change."""
        only_mean(pool_type)
        self.fc = classifier(self.hidden_size, num_classes, next(self.hidden.parameters()))

    def maps(self, x: Tensor) -> Tensor:
        """The last hidden layer at every position, ``[B, hidden[-1], h', w']``."""
        check_grid(x, self.grid)
        hidden: Tensor = self.hidden(x)
        return hidden

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        # The classifier is linear: the answer to the mean is the mean of the answers.
        pooled = self.maps(x).mean((2, 3))
        answer: Tensor = pooled if pre_logits else self.fc(pooled)
        return answer


def classifier(features: int, num_classes: int, like: Tensor | None = None) -> nn.Module:
    """A dense layer, or nothing for no classes; on the device and of the dtype of ``like``."""
    if not num_classes:
        return nn.Identity()
    layer = nn.Linear(features, num_classes)
    return layer if like is None else layer.to(like)


def only_mean(pool_type: str | None) -> None:
    """Refuses a pooling that dense layers do not have."""
    if pool_type not in (None, "avg"):
        raise InputError(f"dense layers average their answers; pooling cannot be {pool_type!r}")


def check_grid(x: Tensor, grid: tuple[int, int]) -> None:
    """Refuses maps smaller than dense layers were built for."""
    height, width = x.shape[-2:]
    if not has_open_size(x) and (height < grid[0] or width < grid[1]):
        raise InputError(
            f"the images are too small: this network's dense layers need maps of at least "
            f"{grid[0]}×{grid[1]}, got {height}×{width}; give images of the size it was designed for "
            f"(pretrained_cfg['input_size']) or larger"
        )
