"""Images of mean 0 and standard deviation 1, channel by channel, as part of the net."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nearfar.errors import InputError

__all__ = ["Normalisation", "Normalised"]


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation of each channel, of values from 0 to 1.

    Raises:
        InputError: not as many means as deviations, or a deviation that is not above 0.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", tuple(self.mean))
        object.__setattr__(self, "std", tuple(self.std))
        if len(self.mean) != len(self.std) or not all(s > 0 for s in self.std):
            raise InputError(
                f"normalisation needs a mean and a standard deviation above 0 for each channel, got "
                f"mean={self.mean} and std={self.std}; a deviation of 0 means that all images are alike: "
                f"take normalize='none' or other images"
            )

    @classmethod
    def of(cls, batches: Iterable[Tensor]) -> Normalisation:
        """Of all pixels of ``[B, C, H, W]`` images that come in batches."""
        count, total, squares = 0, torch.tensor(0.0), torch.tensor(0.0)
        for images in batches:
            values = images.double().transpose(0, 1).flatten(1)
            count += values.shape[1]
            total = total + values.sum(1)
            squares = squares + values.square().sum(1)
        mean = total / count
        # Rounding may leave a little below zero where all pixels are equal.
        std = (squares / count - mean.square()).clamp(min=0).sqrt()
        return cls(tuple(mean.tolist()), tuple(std.tolist()))


class Normalised(nn.Module):
    """A network that takes images of values from 0 to 1 and normalises them itself.

    So training, audits and whatever else uses the net give it the same images, and none of them can
    forget it. The figures are no weights: the state dict is ``network``'s below ``network.``.

    Args:
        network: ``[B, C, H, W]`` → anything.
        normalisation: one figure a channel.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, normalisation: Normalisation) -> None:
        super().__init__()
        self.network = network
        for name in ("mean", "std"):
            values = torch.tensor(getattr(normalisation, name)).view(1, -1, 1, 1)
            self.register_buffer(name, values, persistent=False)

    def around(self, network: nn.Module) -> Normalised:
        """Another network, whose input is normalised likewise."""
        figures = (tuple(getattr(self, name).flatten().tolist()) for name in ("mean", "std"))
        return Normalised(network, Normalisation(*figures)).to(self.mean.device, self.mean.dtype)

    def forward(self, images: Tensor) -> Tensor:
        """The network's answer to normalised images."""
        answer: Tensor = self.network((images - self.mean) / self.std)
        return answer

    def extra_repr(self) -> str:
        """Mean and standard deviation."""
        mean, std = (tuple(t.flatten().tolist()) for t in (self.mean, self.std))
        return f"mean={mean}, std={std}"
