"""Every family of networks through every command: ``python -m benchmarks.sweep [NAME …]``.

One small network of each of timm's families and every classifier of torchvision's, with random weights, is
opened, asked about two photographs, counted, audited on eight images, converted by each method and exported;
what comes out at scale 1 is compared with the plain network and its publisher's own transform, outside of
nearfar. Written to ``results/sweep.json`` network by network, each in a process of its own: what is there
already is not run again. ``docs/sweep.md`` is made of it.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import re
import sys
import warnings
from collections import Counter, defaultdict
from multiprocessing.connection import Connection
from pathlib import Path

import timm
import torch
import torchvision

from benchmarks.sweep_steps import LARGE_GFLOPS, SCALES, SMALL_SIDE, STEPS, TOLERANCE, Sweep
from nearfar.errors import first_line
from nearfar.provenance import machine, today

ROOT = Path(__file__).parent.parent
RESULTS, PAGE = ROOT / "results" / "sweep.json", ROOT / "docs" / "sweep.md"
LIMIT_S = 3600

#: One small network of each module of timm's (1.0.31), the cheapest first.
FAMILIES = """
test_nfnet starnet_s050 dla46x_c mobilenetv3_small_050 mobilevit_xxs mobilenetv2_035
edgenext_xx_small ese_vovnet19b_slim_dw repghostnet_050 efficientvit_m0 ghostnet_050 regnetx_002
cspnext_tiny iformer_t xcit_nano_12_p8_224 efficientvit_b0 swiftformer_xs efficientformerv2_s0
pvt_v2_b0 convnext_atto_rms lcnetv2_small inception_next_atto cs3darknet_focus_s rexnet_100
hardcorenas_b fastvit_t8 repvit_m0_9 coat_tiny eva02_tiny_patch14_224 convit_tiny
deit_tiny_patch16_224 vit_tiny_patch16_224 gmlp_ti16_224 hgnetv2_b0 shvit_s1 vit_tiny_r_s16_p8_224
cpubone_nano efficientvim_m1 mambaout_femto levit_128s densenet121 crossvit_tiny_240 gernet_s dpn48b
maxvit_pico_rw_256 visformer_tiny halonet_h1 resnest14d pit_xs_224 resnetv2_18 resnet18
legacy_seresnet18 cait_xxs24_224 skresnet18 gcvit_xxtiny tiny_vit_5m_224 efficientformer_l1
hrnet_w18_small lowformer_b0 nest_tiny convmixer_768_32 vit_srelpos_small_patch16_224
vitamin_small_224 tnt_s_legacy_patch16_224 rdnet_tiny twins_svt_small mvitv2_tiny res2next50
caformer_s18 volo_d1_224 sequencer2d_s hiera_tiny_224 swin_tiny_patch4_window7_224
swinv2_cr_tiny_224 davit_tiny focalnet_tiny_srf selecsls42 fasternet_s tresnet_m nextvit_small
swinv2_tiny_window8_256 legacy_xception inception_v3 hieradet_small xception41p csatv2 inception_v4
samvit_base_patch16_224 beit_base_patch16_224 inception_resnet_v2 mobilenetv5_base vgg11
pnasnet5large nasnetalarge naflexvit_base_patch16_parfac_gap qwen3_vit_88m gemma4_vit_167m
deepseek_vit_412m
""".split()  # noqa: SIM905 (a hundred lines else)


def names() -> list[str]:
    """All networks of the sweep."""
    models = torchvision.models
    cost = {
        name: models.get_model_weights(name).DEFAULT.meta["_ops"]
        for name in models.list_models(module=models)
    }
    return [*FAMILIES, *(f"torchvision/{name}" for name in sorted(cost, key=cost.__getitem__))]


def _in_a_process(name: str) -> dict[str, str]:
    """A network's outcome; a crash or a hang of one ends nothing else."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    # Forked, so that everything is imported once; no thread runs before that.
    process = multiprocessing.get_context("fork").Process(target=_send, args=(name, sender))
    process.start()
    sender.close()
    try:
        if not receiver.poll(LIMIT_S):
            return {"open": f"FAULT: not done within {LIMIT_S} s"}
        outcome: dict[str, str] = receiver.recv()
        return outcome
    except EOFError:
        process.join()
        return {"open": f"FAULT: the process ended with status {process.exitcode}"}
    finally:
        process.kill()
        process.join()


def _send(name: str, sender: Connection) -> None:
    try:
        sender.send(Sweep(name).run())
    except Exception as fault:  # of the plain network, outside of nearfar
        sender.send({"open": f"FAULT: {type(fault).__name__}: {first_line(fault)}"})


def run_all(names_to_run: list[str]) -> dict[str, dict[str, str]]:
    """Each network in a process of its own, written down when it is done."""
    record_before = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {"networks": {}}
    results: dict[str, dict[str, str]] = record_before["networks"]
    for number, name in enumerate(names_to_run):
        if name in results:
            continue
        outcome = _in_a_process(name)
        results[name] = outcome
        words = Counter(text.partition(":")[0] for text in outcome.values())
        print(f"{number + 1}/{len(names_to_run)} {name}: {dict(words)}", flush=True)
        record = {
            "command": "python -m benchmarks.sweep",
            "date": today(),
            "machine": machine(),
            "versions": {
                package.__name__: package.__version__ for package in (torch, torchvision, timm)
            },
            "networks": results,
        }
        RESULTS.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    return results


def write_page() -> None:
    """``docs/sweep.md`` from the figures."""
    record = json.loads(RESULTS.read_text())
    results: dict[str, dict[str, str]] = record["networks"]
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    steps = [step for step in STEPS if any(step in outcome for outcome in results.values())]
    left = [name for name in names() if name not in results]
    missing = f" Not run yet: {', '.join(left)}." if left else ""
    lines = [
        "# Every family through every command",
        "",
        f"One small network of each of timm's families and every classifier of torchvision's, "
        f"{len(results)} in all, with random weights: opened by name, asked about two photographs, counted, "
        f"audited on eight images at {', '.join(f'{s:g}' for s in SCALES)} times their size, converted by "
        "each method, exported to a program of torch.export. What comes out at scale 1 is compared with the "
        f"plain network and its publisher's own transform: logits within {TOLERANCE:g} of the largest. "
        f"torchvision's networks of more than {LARGE_GFLOPS:g} GFLOPs see {SMALL_SIDE} pixels. "
        f"`python -m benchmarks.sweep` makes `results/sweep.json` ({record['date']}, {versions}, "
        f"{record['machine']}), and this page with `--page`.{missing}",
        "",
        "✓ works and is the same; – is refused with a reason, listed below.",
        "",
        f"| network | {' | '.join(step.removeprefix('convert ') for step in steps)} |",
        f"| --- |{' --- |' * len(steps)}",
    ]
    marks = {"ok": "✓", "refused": "–", "FAULT": "**fault**", "": ""}
    for name in sorted(results):
        outcome = results[name]
        cells = (marks[re.split("[:,]", outcome.get(step, ""))[0]] for step in steps)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", "## What is refused, and why", ""]
    reasons: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name, outcome in sorted(results.items()):
        for step in steps:
            kind, _, reason = outcome.get(step, "").partition(": ")
            if kind in ("refused", "FAULT"):
                reasons[step, _general(reason)].append(name)
    for (step, reason), networks in sorted(reasons.items()):
        lines += [f"- **{step}**: {reason} ({len(networks)}: {', '.join(networks)})"]
    counts = [
        f"{name}: {text.removeprefix('ok, ')}"
        for name, outcome in sorted(results.items())
        if (text := outcome.get("count", "")).startswith("ok, ")
    ]
    lines += ["", "## Multiplications that torch's counter has otherwise", ""]
    lines += ["; ".join(counts) + "." if counts else "None."]
    PAGE.write_text("\n".join(lines) + "\n")
    print(f"written to {PAGE}")


def _general(reason: str) -> str:
    """A reason without what differs from network to network: class names, layers, shapes, other methods."""
    reason = reason.partition("; methods that can")[0]
    _, _, layers = reason.partition(" can change; ")
    if layers:
        whys = re.findall(r" stays: ([^;]+)", layers)
        whys = [re.sub(r"^\w+ computes", "a layer computes", why) for why in whys]
        return f"no layer that the method can change: {'; '.join(dict.fromkeys(whys))}"
    for pattern, text in (
        (r"^[\w@/.]+ (?=takes|is|cannot|has|gives)", "the network "),
        (r"^method '\w+'(: | )", ""),
        (r"got [A-Z]\w+", "got another"),
        (r"\d+×\d+(×\d+)?", "N×N"),
        (
            r"^[A-Z]\w+ cannot be tried with an image of N×N: [^;]*;",
            "it takes no images of other sizes;",
        ),
        (r"\d+ blocks", "few blocks"),
        (r"the maps of \w+ are at 1/\d+ of the image", "its maps are all of one size"),
        (r"which a level has \(.*?\); give", "which a level has; give"),
        (
            r"the features of \w+ are not maps \[B, C, H, W\] but [^;]*",
            "its features are not maps [B, C, H, W]",
        ),
    ):
        reason = re.sub(pattern, text, reason)
    return reason


def main() -> None:
    """Runs what is named, or all; or one in this process; or writes the page."""
    words = sys.argv[1:]
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    if words[:1] == ["--one"]:
        print(json.dumps(Sweep(words[1]).run()))
        return
    if words != ["--page"]:
        run_all(words or names())
    write_page()


if __name__ == "__main__":
    main()
