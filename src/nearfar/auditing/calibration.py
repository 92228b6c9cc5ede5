"""Expected calibration error: how far confidence is from the share of right answers."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["BINS", "calibration_columns", "calibration_error"]

#: Of equal width, from 0 to 1.
BINS = 15


def calibration_error(confidence: Tensor, right: Tensor) -> float:
    r"""The expected calibration error of answers.

    .. math:: \mathrm{ECE} = \sum_b \frac{|B_b|}{N} \left| \mathrm{acc}(B_b) - \mathrm{conf}(B_b) \right|

    over 15 bins of confidence of equal width; a bin holds its upper edge.

    Args:
        confidence: ``[N]``, from 0 to 1.
        right: ``[N]`` booleans.

    Limits:
        It is above 0 by chance alone, the more so the fewer the images; so are its resampled values.

    Source: M. P. Naeini et al. 2015; 15 bins as in C. Guo et al. 2017.
    """
    return float(calibration_columns(confidence, right).sum(dim=1).abs().sum() / len(confidence))


def calibration_columns(confidence: Tensor, right: Tensor) -> Tensor:
    """``[BINS, N]`` float64: right minus confidence in the bin that an answer falls into, else 0.

    The error of any images is the sum of the rows' absolute sums over them, by their number.
    """
    gap = right.double() - confidence.double()
    bins = (confidence.double() * BINS).ceil().long().clamp(1, BINS) - 1
    return torch.zeros(BINS, len(gap), dtype=torch.float64).scatter_(0, bins[None], gap[None])
