from __future__ import annotations

import json

import pytest
from auditing.made import by_colour, classifier, coloured

from nearfar.auditing import AuditSpec, audit
from nearfar.auditing.axes import AuditPoints
from nearfar.auditing.gate import judge, read_requirements
from nearfar.auditing.result import Verdict
from nearfar.auditing.wording import ZOOM
from nearfar.errors import InputError

SCALES = (0.5, 1.0, 2.0)
TWO = {"plain": 10, "m:odd:name": 10}


def read(*given, models=TWO):
    return read_requirements(given, models, next(iter(models)), AuditPoints(SCALES, 1.0, ZOOM))


@pytest.mark.parametrize(
    ("text", "figure", "scale", "sign", "bound"),
    [
        ("top1@0.5>=0.80", "top1", 0.5, ">=", 0.8),
        ("top5@1 > .9", "top5", 1.0, ">", 0.9),
        ("flips@2.0<1e-1", "flips", 2.0, "<", 0.1),
        ("ece@1<=0.05", "ece", 1.0, "<=", 0.05),
        ("confidence@5e-1>0.5", "confidence", 0.5, ">", 0.5),
        ("band_low<=0.6", "band_low", None, "<=", 0.6),
        ("band_high>=2", "band_high", None, ">=", 2.0),
        ("loss@1<=-0.02", "loss", 1.0, "<=", -0.02),
    ],
)
def test_the_grammar(text, figure, scale, sign, bound):
    (found,) = read(text)
    assert (found.text, found.model) == (text, None)
    assert (found.figure, found.scale, found.sign, found.bound) == (figure, scale, sign, bound)
    (named,) = read(f"m:odd:name:{text}")
    assert (named.text, named.model) == (text, "m:odd:name")


def test_lists_by_comma_and_by_repeating():
    assert [r.text for r in read("top1@1>0, flips@2<1", "band_low<1")] == [
        "top1@1>0",
        "flips@2<1",
        "band_low<1",
    ]
    assert read() == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("top1@1", r"'top1@1' cannot be read: a requirement is FIGURE@SCALE and a bound"),
        ("top1@1=0.5", "cannot be read"),
        ("accuracy@1>0.5", "cannot be read.*figures are top1, top5, confidence, ece, flips, loss"),
        ("top1@1>=high", "cannot be read"),
        ("top1@0.7>0.5", r"needs one of the scales audited \(0.5, 1, 2\) after @"),
        ("top1>0.5", "needs one of the scales audited"),
        ("band_low@1<0.5", "a band has but one end: leave @1 out"),
        ("other:top1@1>0.5", "is about 'other', the models are plain, m:odd:name"),
        ("plain:loss@1<0", r"compares a model with the baseline \(plain\), and there is no other"),
    ],
)
def test_what_cannot_be_asked(text, message):
    with pytest.raises(InputError, match=message):
        read(text)


def test_what_one_model_alone_or_few_classes_cannot_be_asked():
    with pytest.raises(InputError, match="compares a model with the baseline"):
        read("loss@1<0", models={"plain": 10})
    with pytest.raises(InputError, match="needs at least 6 classes, m has 5; take top1"):
        read("top5@1>0", models={"plain": 10, "m": 5})


def near(limit):
    """Right where content is at most this large."""
    return lambda images: (by_colour(images) + (size_of(images) > limit).long()) % 3


def size_of(images):
    return images.amax(1).gt(0.4).float().mean((1, 2)).sqrt() * images.shape[-1] / 16


def test_verdicts_are_about_everybody_but_the_baseline():
    models = {
        "plain": classifier(near(1.2)),
        "wide": classifier(near(1.7)),
        "all": classifier(near(9)),
    }
    require = ("top1@2>0.9", "band_high>=1.5,plain:top1@2>0.9", "loss@2<=-0.5")
    found = audit(models, coloured(12), AuditSpec(flips=0), require=require)
    assert found.verdicts == (
        Verdict("top1@2>0.9", "wide", 0.0, False),
        Verdict("top1@2>0.9", "all", 1.0, True),
        Verdict("band_high>=1.5", "wide", 1.5, True),
        Verdict("band_high>=1.5", "all", 2.0, True),
        Verdict("top1@2>0.9", "plain", 0.0, False),
        Verdict("loss@2<=-0.5", "wide", 0.0, False),
        Verdict("loss@2<=-0.5", "all", -1.0, True),
    )
    assert not found.passed
    assert [v["passed"] for v in found.as_dict()["verdicts"]] == [v.passed for v in found.verdicts]
    alone = audit(
        classifier(near(9)), coloured(12), AuditSpec(flips=0), require=("top1@2>=1", "ece@1<0.1")
    )
    assert [v.passed for v in alone.verdicts] == [True, True]
    assert alone.passed
    assert audit(classifier(near(9)), coloured(12), AuditSpec(flips=0)).passed


def test_a_requirement_is_read_before_anybody_is_asked():
    def never(images):
        raise AssertionError("asked")

    with pytest.raises(InputError, match="cannot be read"):
        audit(classifier(never), coloured(12), require=("top1",))


def test_bounds_are_met_as_written():
    found = audit(classifier(near(9)), coloured(12), AuditSpec(flips=0))
    curve = found.only.curve
    for text, passed in (
        ("top1@1>=1", True),
        ("top1@1>1", False),
        ("flips@2<=0", True),
        ("flips@2<0", False),
        ("band_low<=0.5", True),
        ("band_low<0.5", False),
    ):
        asked = read_requirements(
            (text,), {"made": 3}, "made", AuditPoints(curve.scales, 1.0, ZOOM)
        )
        assert judge(asked, {"made": curve}, "made", 0.05)[0].passed is passed, text


def test_the_command_ends_with_status_1_where_one_fails(capsys, tmp_path, monkeypatch):
    from nearfar.cli.audit import run

    (tmp_path / "made_here.py").write_text(
        "def bright(images):\n"
        "    import torch\n"
        "    low = images.mean((1, 2, 3)) < 0.5\n"
        "    return torch.stack([low, ~low], 1).float()\n"
    )
    from PIL import Image

    for name, level in (("dark", 20), ("light", 230)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(3):
            Image.new("L", (20, 20), level + i).save(tmp_path / "images" / name / f"{i}.png")
    monkeypatch.chdir(tmp_path)
    line = ["made_here:bright", "--size", "16", "--data", "images", "--scales", "0.5,1"]
    # At half the size white on black is dark.
    failed = [*line, "--require", "top1@1>=1", "--require=top1@0.5>=0.9,flips@1<=0", "--out", "a"]
    assert run(failed) == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert "passed: bright: top1@1>=1 (it is 1)" in shown
    assert "FAILED: bright: top1@0.5>=0.9 (it is 0.5)" in shown
    assert "bright stays within 5 points from 1× to 1×." in shown
    assert "100.0 (61.0 to 100.0)" in shown  # six of six, by Wilson
    assert "open a/report.html in a browser" in shown
    written = json.loads((tmp_path / "a" / "audit.json").read_text())
    assert [v["passed"] for v in written["verdicts"]] == [True, False, True]
    assert (tmp_path / "a" / "report.html").read_text().startswith("<!")
    assert run([*line, "--require", "top1@1>=1"]) == 0
    assert "add --out DIR to keep these figures" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(InputError, match="cannot be read"):
        run([*line, "--require", "top1"])
