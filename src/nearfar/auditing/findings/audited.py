"""The sentences of an audit."""

from __future__ import annotations

from collections.abc import Mapping

from nearfar.auditing.findings.behaviour import (
    class_sentence,
    confidence_sentence,
    flip_sentence,
    layer_sentence,
)
from nearfar.auditing.findings.comparing import against, bands
from nearfar.auditing.findings.headline import headline
from nearfar.auditing.result import AuditResult
from nearfar.errors import InputError

__all__ = ["audit_findings"]


def audit_findings(
    results: Mapping[str, AuditResult], baseline: str, max_loss: float
) -> tuple[str, ...]:
    """What an audit found, in sentences; only what the 95 % intervals bear counts as a difference.

    Args:
        results: by name, all on the same images and scales.
        baseline: the one that the others are compared with.
        max_loss: as a fraction: a recogniser holds where its accuracy falls by at most this.

    Returns:
        First the headline; then, of several, who holds where and who is ahead; then, for each, where it
        is surer than right, which classes lose most, how small a change of size flips half of its
        answers and which layer loses invariance, as far as these were measured.

    Raises:
        InputError: no result, or a baseline that is none of them.
    """
    if baseline not in results:
        raise InputError(f"the baseline must be one of {list(results)}, got {baseline!r}")
    curves = {name: result.curve for name, result in results.items()}
    sentences: list[str | None] = [headline(curves, baseline, max_loss)]
    rivals = [name for name in curves if name != baseline]
    if rivals:
        one = curves[baseline].reference
        sentences.append(bands(curves, one, max_loss, each="each"))
        sentences += [against(name, curves[name], baseline, curves[baseline]) for name in rivals]
    for name, result in results.items():
        sentences += [
            confidence_sentence(name, result.curve),
            class_sentence(name, result.curve, result.class_names),
            flip_sentence(name, result.flips),
            layer_sentence(name, result.layers),
        ]
    return tuple(sentence for sentence in sentences if sentence)
