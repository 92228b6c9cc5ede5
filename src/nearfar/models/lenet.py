"""The LeNets: 1989's for 16×16 zip code digits, 1998's LeNet-5."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

from nearfar.errors import InputError
from nearfar.models.heads import DenseHead
from nearfar.models.registry import register
from nearfar.models.staged import StagedNet

__all__ = ["LeNet5", "LeNet1989", "lenet5", "lenet1989"]

#: Which maps of S2 each map of C3 reads: LeCun et al. 1998, Table I.
_C3 = (
    *[tuple((first + i) % 6 for i in range(3)) for first in range(6)],
    *[tuple((first + i) % 6 for i in range(4)) for first in range(6)],
    *[(0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5)],
    tuple(range(6)),
)


class ScaledTanh(nn.Module):
    """``1.7159 tanh(2 x / 3)``: gain about 1 where the sum is about 1 (LeCun et al. 1998, App. A)."""

    def forward(self, x: Tensor) -> Tensor:
        return 1.7159 * torch.tanh(x * (2 / 3))


class Subsampling(nn.Module):
    """Mean over 2×2, times a coefficient, plus a bias, both learnt for each map.

    Source: LeCun et al. 1998, §II-B, layers S2 and S4: 12 and 32 trainable numbers.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(2)
        self.weight = nn.Parameter(torch.ones(channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        pooled: Tensor = self.pool(x)
        return pooled * self.weight + self.bias


class TableConv2d(nn.Module):
    """A convolution in which each output map reads some input maps only, by a table.

    Args:
        table: for each output map, the input maps it reads.
        kernel_size, stride, padding: as in ``torch.nn.Conv2d``.

    Shape:
        ``[B, C_in, H, W]`` → ``[B, len(table), H', W']``. ``weight`` holds one kernel a connection,
        in the table's order.
    """

    reads: Tensor
    connected: Fraction

    def __init__(
        self,
        table: Sequence[Sequence[int]],
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.stride = stride
        self.padding = padding
        self.in_channels = 1 + max(itertools.chain(*table))
        self.out_channels = len(table)
        # What share of a full convolution's connections the table has, for counting.
        self.connected = Fraction(sum(map(len, table)), self.in_channels * len(table))
        # Where each kernel of `weight` stands in the full convolution's.
        places = [o * self.in_channels + i for o, row in enumerate(table) for i in row]
        self.register_buffer("reads", torch.tensor(places), persistent=False)
        self.weight = nn.Parameter(torch.empty(len(places), kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(len(table))) if bias else None
        # Fan-in differs by map: the first weights do too (LeCun et al. 1998, App. A: 2.4 / fan-in).
        fans = torch.tensor([len(row) for row in table for _ in row]) * kernel_size**2
        with torch.no_grad():
            bound = (2.4 / fans)[:, None, None]
            self.weight.uniform_(-1, 1).mul_(bound)

    def forward(self, x: Tensor) -> Tensor:
        size = self.weight.shape[-2:]
        full = self.weight.new_zeros(self.out_channels * self.in_channels, *size)
        kernel = full.index_copy(0, self.reads, self.weight)
        kernel = kernel.reshape(self.out_channels, self.in_channels, *size)
        return nn.functional.conv2d(x, kernel, self.bias, self.stride, self.padding)

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={tuple(self.weight.shape[-2:])}, "
            f"connections={len(self.reads)}"
        )


class UnitBias(nn.Module):
    """A bias for every unit, not for every map: 1989's net shares weights over place, not biases."""

    def __init__(self, channels: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels, *size))

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1:] != self.bias.shape:
            raise InputError(
                f"this network has a bias for every unit and takes images of one size: its maps must be "
                f"{'×'.join(map(str, self.bias.shape))}, got {'×'.join(map(str, x.shape[1:]))}; give the "
                f"size it was built for, or build it with your img_size"
            )
        return x + self.bias


class LeNet5(StagedNet):
    """LeNet-5: convolution, subsampling, convolution, subsampling, three dense layers.

    Args:
        num_classes: classes; 0 leaves the classifier out.
        in_chans: channels of the image.
        as_printed: as printed in 1998: C3's maps read some of S2's by a table, subsampling has a
            coefficient and a bias a map, activations are scaled tanh. Otherwise as the lecture
            counts it: C3 reads all maps, subsampling learns nothing, activations are ReLU.

    Shape:
        ``[B, in_chans, H, W]`` → ``[B, num_classes]``, H and W from 28 (padded by 2 to the original's
        32). Larger images are answered at every place, and the answers averaged.

    Limits:
        1998's output layer compares with fixed bitmaps of characters (RBF units, nothing learnt);
        here it is a dense layer. Without it, ``as_printed`` has the 60,000 parameters of the paper.

    Source: Y. LeCun et al. 1998, "Gradient-Based Learning Applied to Document Recognition"; "CNNs &
    Image Classification" (lecture), "Size of a conv net".
    """

    def __init__(self, num_classes: int = 10, in_chans: int = 1, as_printed: bool = False) -> None:
        act = ScaledTanh if as_printed else nn.ReLU
        c3 = TableConv2d(_C3, 5) if as_printed else nn.Conv2d(6, 16, 5)
        first = nn.Sequential(nn.Conv2d(in_chans, 6, 5, padding=2), act())
        second = nn.Sequential(_subsampling(6, as_printed), c3, act(), _subsampling(16, as_printed))
        head = DenseHead(16, (5, 5), (120, 84), num_classes, act)
        super().__init__(nn.Identity(), [first, second], head, num_classes, (6, 16), (1, 4))


def _subsampling(channels: int, as_printed: bool) -> nn.Module:
    if as_printed:
        return nn.Sequential(Subsampling(channels), ScaledTanh())
    return nn.AvgPool2d(2)


class LeNet1989(StagedNet):
    """The first LeNet: two strided convolutions with a bias for every unit, then 30 units.

    Args:
        num_classes: classes; 0 leaves the classifier out.
        in_chans: channels of the image.
        img_size: height and width of the image, multiples of 4; the biases are tied to it.

    Shape:
        ``[B, in_chans, *img_size]`` → ``[B, num_classes]``.

    Raises:
        InputError: images of another size.

    Limits:
        Each of H2's maps reads 8 of H1's 12, "according to a scheme" that is not printed; here four
        read the first eight, four the last eight, four the outer eight. The border is padded with
        zeros, not with the -1 of the original's background.

    Source: Y. LeCun et al. 1989, "Backpropagation Applied to Handwritten Zip Code Recognition": 1,256
    units (256 of them pixels), 64,660 connections, 9,760 parameters.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_chans: int = 1,
        img_size: int | tuple[int, int] = 16,
    ) -> None:
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        if height < 4 or width < 4 or height % 4 or width % 4:
            raise InputError(
                f"img_size must be multiples of 4 (two strides of 2), got {height}×{width}"
            )
        table = [range(8)] * 4 + [range(4, 12)] * 4 + [[0, 1, 2, 3, 8, 9, 10, 11]] * 4
        h1 = nn.Sequential(
            nn.Conv2d(in_chans, 12, 5, stride=2, padding=2, bias=False),
            UnitBias(12, (height // 2, width // 2)),
            ScaledTanh(),
        )
        h2 = nn.Sequential(
            TableConv2d(table, 5, stride=2, padding=2, bias=False),
            UnitBias(12, (height // 4, width // 4)),
            ScaledTanh(),
        )
        head = DenseHead(12, (height // 4, width // 4), (30,), num_classes, ScaledTanh)
        super().__init__(nn.Identity(), [h1, h2], head, num_classes, (12, 12), (2, 4))


@register((1, 16, 16), first_conv="stages.0.0", fixed_input_size=True)
def lenet1989(**kwargs: Any) -> LeNet1989:
    """1989's net for 16×16 digits."""
    return LeNet1989(**kwargs)


@register((1, 28, 28), first_conv="stages.0.0")
def lenet5(**kwargs: Any) -> LeNet5:
    """LeNet-5 as the lecture counts it; ``as_printed=True``: as printed in 1998."""
    return LeNet5(**kwargs)
