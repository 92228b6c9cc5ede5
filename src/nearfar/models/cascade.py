"""The whole network on a pyramid, level by level: it looks again only where it is unsure."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nearfar import pyramid
from nearfar.errors import InputError
from nearfar.models.hierarchical import HierarchicalNet, Reduction, Window, distinct_scales
from nearfar.pyramid import Pyramid
from nearfar.reference import is_ordinary, is_reference_only
from nearfar.scale_sets import ScaleSet

__all__ = ["CascadeNet", "vote_of"]


def vote_of(levels: Sequence[Tensor], reduction: Reduction) -> Tensor:
    """What levels say together: their log-probabilities ``[..., K]``, reduced → log-probabilities.

    Args:
        levels: at least one.
        reduction: ``logsumexp`` (the mean of their probabilities), ``mean`` (of their logits) or ``max``.
    """
    count = len(levels)
    together = Pyramid(tuple(levels), tuple(map(float, range(count))), (None,) * count, None)
    return pyramid.collapse(together, reduction).log_softmax(dim=-1)  # type: ignore[arg-type]


class CascadeNet(HierarchicalNet):
    """A network that meets an image at one scale after the other, until it is sure of its answer.

    .. math::
        y = v_k,\\quad k = \\min \\{ j : \\max_c v_j \\ge \\log t \\text{ or } j = n \\},\\quad
        v_j = \\log \\mathrm{softmax}\\; \\mathrm{collapse}_{i \\le j}\\; \\ell_i,\\quad
        \\ell_i = \\log \\mathrm{softmax}\\, f(T_i(x)) / \\tau

    That is the vote of the first ``k`` levels, of which ``k`` is the fewest that make it sure. In evaluation
    mode the net runs on a level only for those images of a batch that need it, so that cost depends on the
    images. Everywhere else all levels are run: in training (where the answer is the vote of all), within
    :func:`nearfar.reference.reference_only`, when it is counted (the cost is then the most that an image can
    cost), compiled, traced or exported. An exported program has the same answers at the cost of all levels;
    :func:`nearfar.deploy.export_looks` exports a cascade that stops.

    Args:
        net: the classifier, ``[B, C, H, W]`` at any H and W → ``[B, K]``.
        scales: at which scales it meets the image, in the order in which it looks.
        reduction: how levels vote, as in :class:`HierarchicalNet`; not ``learned``, which needs all levels.
        window: as in :class:`HierarchicalNet`.
        temperature: as in :class:`HierarchicalNet`; it decides on how sure an answer is, too.
        threshold: from which probability of its best class on an answer is sure: from 0 (the first look
            decides) to 1 (all are taken, as good as always).

    Shape:
        ``[B, C, H, W]`` → ``[B, K]``, log-probabilities.

    Raises:
        InputError: as :class:`HierarchicalNet` does, a learnt reduction, or a threshold outside 0 to 1.

    Source: P. Viola and M. Jones 2001, cascades; S. Teerapittayanon et al. 2016, leaving a network where its
    answer is sure.
    """

    def __init__(
        self,
        net: nn.Module,
        scales: ScaleSet = (1.0, 0.5, 2.0),
        reduction: Reduction = "logsumexp",
        window: Window = "image",
        temperature: float = 1.0,
        threshold: float = 0.9,
    ) -> None:
        if reduction == "learned":
            raise InputError(
                "a cascade votes with the levels it has seen, got reduction='learned', which weighs all of "
                "them; give logsumexp, mean or max, or leave threshold out"
            )
        super().__init__(net, scales, reduction, window, temperature)
        if not 0 <= threshold <= 1:
            raise InputError(f"threshold is a probability from 0 to 1, got {threshold!r}")
        self.threshold = threshold

    def forward(self, x: Tensor) -> Tensor:
        if self.training or self.num_classes == 0:
            return super().forward(x)
        if is_ordinary(x) and not is_reference_only():
            return self._until_sure(x)
        return self._all_looks(x)

    def look(self, x: Tensor, scale: float) -> Tensor:
        """What one look says: log-probabilities of the level at a scale, ``[B, C, H, W]`` → ``[B, K]``."""
        return self._log_probabilities(self._levels(self.net, x, (scale,)).levels[0])

    def looks(self, x: Tensor) -> tuple[float, ...]:
        """The scales of its looks at images of this size, in their order; of one size one is left."""
        return self.scales if isinstance(self.window, int) else distinct_scales(x, self.scales)

    def _until_sure(self, x: Tensor) -> Tensor:
        """Every image's answer, the net run on those alone that are not sure yet."""
        unsure = torch.arange(len(x), device=x.device)
        levels: list[Tensor] = []
        answers, order = [], []
        scales = self.looks(x)
        for number, scale in enumerate(scales, start=1):
            levels = [*levels, self.look(x[unsure], scale)]
            vote = vote_of(levels, self.reduction)
            done = self._is_sure(vote) | (number == len(scales))
            answers.append(vote[done])
            order.append(unsure[done])
            if bool(done.all()):
                break
            unsure, levels = unsure[~done], [level[~done] for level in levels]
        return torch.cat(answers)[torch.cat(order).argsort()]

    def _all_looks(self, x: Tensor) -> Tensor:
        """The same by its definition: every vote, and of each image the first that is sure."""
        levels: list[Tensor] = []
        votes = []
        for scale in self.looks(x):
            levels.append(self.look(x, scale))
            votes.append(vote_of(levels, self.reduction))
        answer = votes[-1]
        for vote in reversed(votes[:-1]):
            answer = torch.where(self._is_sure(vote).unsqueeze(1), vote, answer)
        return answer

    def _is_sure(self, vote: Tensor) -> Tensor:
        return vote.amax(dim=1).exp() >= self.threshold

    def extra_repr(self) -> str:
        """As of the base class, and from when on it is sure."""
        return f"{super().extra_repr()}, threshold={self.threshold:g}"
