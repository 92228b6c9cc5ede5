"""A fully connected net on MNIST: why there is convolution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from nearfar.errors import InputError
from nearfar.models.heads import classifier, only_mean
from nearfar.models.initialisation import reset_he
from nearfar.models.registry import register
from nearfar.models.staged import HeadedNet

__all__ = ["MLP", "mlp_mnist"]


class MLP(HeadedNet):
    """Dense layers on all pixels of an image of one size.

    Every pixel has a weight of its own to every unit: 3 · W · H numbers in and about as many out make
    ~9 W² H² weights a layer, and what is learnt at one place says nothing about another.

    Args:
        num_classes: classes; 0 leaves the classifier out.
        in_chans: channels of the image.
        img_size: height and width of the image, or both as one number.
        hidden: units of the hidden layers.

    Shape:
        ``[B, in_chans, *img_size]`` → ``[B, num_classes]``; features are ``[B, hidden[-1], 1, 1]``.

    Raises:
        InputError: an image of another size; no hidden layer.

    Source: "Convolutional Neural Networks" (lecture notes), §1.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_chans: int = 1,
        img_size: int | tuple[int, int] = 28,
        hidden: Sequence[int] = (784,),
    ) -> None:
        super().__init__()
        if not hidden:
            raise InputError("a fully connected net needs at least one hidden layer")
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        self.image = (in_chans, height, width)
        self.num_classes = num_classes
        self.num_features = hidden[-1]
        self.hidden = nn.Sequential(nn.Flatten())
        before = in_chans * height * width
        for units in hidden:
            self.hidden.append(nn.Linear(before, units))
            self.hidden.append(nn.ReLU())
            before = units
        self.head = _Classifier(before, num_classes)
        reset_he(self)

    def forward_features(self, x: Tensor) -> Tensor:
        if tuple(x.shape[1:]) != self.image:
            want, came = ("×".join(str(n) for n in shape) for shape in (self.image, x.shape[1:]))
            raise InputError(
                f"this fully connected net was built for images of {want}, got {came}; resize them, or "
                f"build it with in_chans and img_size of your images"
            )
        features: Tensor = self.hidden(x)[:, :, None, None]
        return features


class _Classifier(nn.Module):
    """The last dense layer, where timm looks for it."""

    def __init__(self, features: int, num_classes: int) -> None:
        super().__init__()
        self.hidden_size = features
        self.fc = classifier(features, num_classes)

    def reset(self, num_classes: int, pool_type: str | None = None) -> None:
        only_mean(pool_type)
        self.fc = classifier(self.hidden_size, num_classes, getattr(self.fc, "weight", None))

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        flat = x.flatten(1)
        answer: Tensor = flat if pre_logits else self.fc(flat)
        return answer


@register((1, 28, 28), first_conv="hidden.1", fixed_input_size=True)
def mlp_mnist(**kwargs: Any) -> MLP:
    """784 pixels, 784 hidden units, 10 classes."""
    return MLP(**kwargs)
