from __future__ import annotations

import json
import re
from importlib.resources import files

import jsonschema
import pytest
import yaml

from nearfar.errors import InputError
from nearfar.experiments.quickstart import NETS, quickstart, quickstart_specs
from nearfar.progress import Step
from nearfar.training import load_checkpoint


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "smoke"
    steps: list[Step] = []
    return quickstart(out, fast=True, progress=steps.append), steps


def test_it_leaves_everything_it_names(smoke):
    result, _ = smoke
    assert {p.name for p in result.out.iterdir()} == {
        *("report.html", "results.json", "timings.json", "config.yaml", "models"),
        *("curves.png", "curves.svg", "winners.png", "winners.svg"),
    }
    for name in NETS:
        assert load_checkpoint(result.out / "models" / name / "weights.safetensors").model
    assert result.moved is None


def test_results_follow_their_schema(smoke):
    result, _ = smoke
    schema = json.loads((files("nearfar.experiments") / "quickstart.schema.json").read_text())
    results = json.loads((result.out / "results.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(results, schema)
    for name, found in results["models"].items():
        curve = result.audits[name].curve
        assert found["accuracy"] == {str(s): curve.accuracy(s) for s in curve.scales}
        assert {0.3, 0.5, 1.0, 2.0} <= {float(s) for s in found["accuracy"]}
        assert len(found["accuracy"]) == 9
    plain = results["models"]["plain"]["parameters"]
    assert results["models"]["si"]["parameters"] == plain
    assert results["models"]["hierarchical"]["parameters"] == plain


def test_progress_only_grows_and_ends_at_its_total(smoke):
    _, steps = smoke
    done = [step.done for step in steps]
    assert done == sorted(done)
    assert steps[-1].done == steps[-1].total
    assert len({step.total for step in steps}) == 1


def test_the_report_is_one_file_that_asks_for_nothing(smoke):
    result, _ = smoke
    page = (result.out / "report.html").read_text()
    links = re.findall(r'(?:src|href|url)\s*[=(]\s*["\']?([^"\'\s)>]+)', page)
    assert links
    assert all(link.startswith(("data:", "#")) for link in links), links
    assert "<script" not in page
    for sentence in result.findings:
        assert sentence.replace("'", "&#39;") in page
    assert page.count("<img") == 4 * 9
    assert "smoke run" in page


def test_the_same_seed_gives_the_same_file(smoke, tmp_path):
    result, _ = smoke
    again = quickstart(tmp_path / "again", fast=True)
    assert (again.out / "results.json").read_bytes() == (result.out / "results.json").read_bytes()


def test_starting_again_keeps_what_is_finished(smoke):
    result, _ = smoke
    weights = {name: result.out / "models" / name / "weights.safetensors" for name in NETS}
    before = {name: path.stat().st_mtime_ns for name, path in weights.items()}
    results = (result.out / "results.json").read_bytes()
    weights["si"].unlink()
    (result.out / "report.html").unlink()
    quickstart(result.out, fast=True)
    after = {name: path.stat().st_mtime_ns for name, path in weights.items()}
    assert {name for name in NETS if after[name] != before[name]} == {"si"}
    assert (result.out / "results.json").read_bytes() == results
    assert (result.out / "report.html").exists()


def test_a_run_of_other_settings_is_moved_aside(tmp_path, monkeypatch):
    import nearfar.experiments.quickstart as module

    out = tmp_path / "q"
    module._claim(out, 0, True)
    (out / "precious").write_text("x")
    assert module._claim(out, 0, True) is None
    assert module._claim(out, 1, True) == tmp_path / "q.1"
    assert (tmp_path / "q.1" / "precious").read_text() == "x"
    assert module._claim(out, 0, True) == tmp_path / "q.2"


def test_a_folder_of_somebody_s_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match="is not empty and holds no quickstart run"):
        quickstart(tmp_path, fast=True)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_recipes_are_the_quickstart_s_nets(pytestconfig):
    data, fit = quickstart_specs()
    from nearfar.training import Recipe, TrainerSpec

    for name, model in NETS.items():
        path = pytestconfig.rootpath / "recipes" / f"digits_{name}.yaml"
        found = yaml.safe_load(path.read_text())
        assert found.pop("out") == f"runs/digits_{name}"
        expected = Recipe(model, data, fit, 0, TrainerSpec()).as_dict()
        assert_within(found, expected)
        assert found["model"]["name"] == model.name


def assert_within(part, whole):
    """Every value that a recipe names is the one expected."""
    for key, value in part.items():
        if isinstance(value, dict):
            assert_within(value, whole[key])
        else:
            assert value == whole[key], key
