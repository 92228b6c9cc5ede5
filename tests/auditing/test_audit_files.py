from __future__ import annotations

import json
import math
from importlib.resources import files

import jsonschema
import pytest
import torch
from auditing.made import by_colour, classifier, coloured, numbered
from auditing.test_layers import Net, opened, textured

from nearfar.auditing import AuditSpec, audit
from nearfar.data import LabelledImages
from nearfar.errors import InputError
from nearfar.version import versions


@pytest.fixture(scope="module")
def schema():
    found = json.loads((files("nearfar.auditing") / "schema" / "audit.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(found)
    return found


def refuse(constant):
    raise AssertionError(f"{constant} is not JSON")


def test_what_is_written_follows_the_schema(schema, tmp_path):
    models = {"net": opened(Net()), "colour": classifier(by_colour)}
    found = audit(
        models,
        textured(),
        AuditSpec(scales=(0.25, 0.5, 1, 2), layers=("p*",), flips=20),
        require=("top1@0.5>=0", "loss@2<1"),
        out=tmp_path / "a",
    )
    assert {p.name for p in (tmp_path / "a").iterdir()} == {"audit.json", "report.html"}
    text = (tmp_path / "a" / "audit.json").read_text()
    written = json.loads(text, parse_constant=refuse)
    jsonschema.validate(written, schema)
    assert written == found.as_dict()
    assert written["scales"] == [0.25, 0.5, 1.0, 2.0]
    assert written["test_images"] == 120
    assert list(written["models"]) == ["net", "colour"]
    assert written["made"].items() >= versions().items()
    net, colour = written["models"].values()
    assert net["layers"]["equivariance"][1] == [None, None]  # a map of one sample: NaN
    curve = found.results["net"].curve
    assert net["figures"]["top1"]["value"] == [round(curve.accuracy(s), 8) for s in curve.scales]
    assert net["figures"]["ece"]["low"][1] == round(curve.interval(0.5, "ece")[0], 8)
    assert net["classes"]["top1"][2][3] == round(float(curve.class_accuracy(3)[2, 3]), 8)
    assert net["flips"]["images"] == found.results["net"].flips.images.tolist()
    assert net["cost"]["parameters"] == sum(p.numel() for p in Net().parameters())
    assert (colour["layers"], colour["cost"]["parameters"], colour["cost"]["memory"]) == (None,) * 3
    assert colour["cost"]["seconds"] > 0


def test_what_is_not_known_is_null(schema):
    given = numbered(14, 7)
    labels = torch.where(given.labels == 6, 0, given.labels)
    given = LabelledImages(given.images, labels, given.class_names, test_from=0)
    found = audit(classifier(by_colour, 7), given, AuditSpec(flips=0)).as_dict()
    jsonschema.validate(found, schema)
    model = found["models"]["made"]
    assert model["classes"]["images"][6] == 0
    assert model["classes"]["low"][6] == [None] * 5
    assert model["flips"] is None
    assert set(model["figures"]) == {"top1", "top5", "confidence", "ece", "flips"}
    assert not math.isnan(model["band"]["low"])


def test_the_same_audit_gives_the_same_figures():
    torch.manual_seed(0)
    net = Net()
    one, other = (
        audit(opened(net), textured(), AuditSpec(flips=10, batch_size=b)).as_dict()
        for b in (7, 120)
    )
    for found in (one, other):
        del found["models"]["net"]["cost"]
    assert one["models"]["net"]["flips"] == other["models"]["net"]["flips"]
    assert one["models"]["net"]["figures"]["top1"] == other["models"]["net"]["figures"]["top1"]


def test_somebody_s_files_are_left_alone(tmp_path):
    def never(images):
        raise AssertionError("asked")

    (tmp_path / "report.html").write_text("<p>my report</p>")
    with pytest.raises(
        InputError, match=r"report.html is not an audit of nearfar's; choose another"
    ):
        audit(classifier(never), coloured(6), out=tmp_path)
    (tmp_path / "audit.json").write_text("{}")
    with pytest.raises(InputError, match=r"audit.json is not an audit of nearfar's"):
        audit(classifier(never), coloured(6), out=tmp_path)
    assert (tmp_path / "report.html").read_text() == "<p>my report</p>"
    again = tmp_path / "again"
    for _ in range(2):  # an audit's own files are written anew
        audit(classifier(by_colour), coloured(6), AuditSpec(flips=0), out=again)
    with pytest.raises(InputError, match="cannot make the folder"):
        audit(classifier(never), coloured(6), out=tmp_path / "report.html")
