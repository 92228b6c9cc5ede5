"""The report of a conversion, to be read."""

from __future__ import annotations

from collections import Counter

from nearfar.deploy.conversion_result import ConvertResult

__all__ = ["page", "summary", "verdict"]


def summary(result: ConvertResult) -> list[str]:
    """What was changed and what was left, in sentences."""
    plan = result.plan
    layers = [c for c in plan.changes if c.name]
    if layers:
        kinds = Counter(f"{c.before} → {c.after}" for c in layers)
        count = "1 layer" if len(layers) == 1 else f"{len(layers)} layers"
        listed = "; ".join(f"{n} × {kind}" for kind, n in kinds.items())
        sentences = [f"{count} changed: {listed}."]
    else:
        sentences = [f"{c.before} became {c.after}." for c in plan.changes]
    for why in dict.fromkeys(x.why for x in plan.left):
        some = [x.name for x in plan.left if x.why == why]
        named = ", ".join(some[:3]) + (" …" if len(some) > 3 else "")
        stay = (
            "1 layer stays as it is" if len(some) == 1 else f"{len(some)} layers stay as they are"
        )
        sentences.append(f"{stay} ({named}): {why}.")
    if not result.rebuilt:
        sentences.append(
            "The network was given as a module, so the weights do not say what builds it: read them with "
            "nearfar.load_checkpoint(path, network), where network is converted alike."
        )
    return [*sentences, *plan.notes]


def page(result: ConvertResult) -> str:
    """The report as Markdown."""
    lines = [f"# {result.classifier.name}", ""]
    lines += [f"- {sentence}" for sentence in summary(result)]
    if result.audit is None:
        lines += ["", "Nothing was compared: no images were given.", ""]
        return "\n".join(lines)
    before, after = result.right("original"), result.right("converted")
    scales = sorted(before)
    what = "labels" if result.labelled else "answers of the original at scale 1"
    count = len(result.audit.results["original"].curve.labels)
    lines += [
        "",
        f"Right answers in per cent on {count} held-out images (right is what the {what} say):",
        "",
        "| | " + " | ".join(f"{s:g}×" for s in scales) + " |",
        "| --- |" + " ---: |" * len(scales),
        "| original | " + " | ".join(f"{100 * before[s]:.1f}" for s in scales) + " |",
        "| converted | " + " | ".join(f"{100 * after[s]:.1f}" for s in scales) + " |",
        "| gain | " + " | ".join(f"{100 * (after[s] - before[s]):+.1f}" for s in scales) + " |",
        "",
        verdict(result),
        "",
    ]
    costs = [result.audit.results[n].cost for n in ("original", "converted")]
    if costs[0] is not None and costs[1] is not None:
        ratio = costs[1].multiplications / max(1, costs[0].multiplications)
        lines += [
            f"{costs[1].parameters:,} parameters ({costs[1].parameters - costs[0].parameters:+,}), "
            f"{costs[1].multiplications:,} multiplications an image ({ratio:.2f} times the original's).",
            "",
        ]
    return "\n".join(lines)


def verdict(result: ConvertResult) -> str:
    """Whether enough is left at scale 1, in a sentence."""
    assert result.loss is not None, "it was compared"
    moved = f"{100 * abs(result.loss):.1f} points {'less' if result.loss > 0 else 'more'}"
    if result.accepted:
        return f"At scale 1 {moved} than before: within the {100 * result.max_loss:g} that may be lost."
    return (
        f"NOT ACCEPTED: at scale 1 {moved} than before, and {100 * result.max_loss:g} may be lost. "
        f"Recalibrate, fine-tune (longer), convert fewer layers, or allow more with max_loss."
    )
