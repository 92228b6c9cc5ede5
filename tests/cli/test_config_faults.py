from __future__ import annotations

import pytest
import yaml

from nearfar.cli import main
from nearfar.cli.parsing import parse_call
from nearfar.training import train


@pytest.fixture
def refused(capsys, tmp_path):
    """Runs ``nearfar train`` with a configuration that it must refuse; gives what it says."""

    def run(text, *arguments):
        config = tmp_path / "config.yaml"
        config.write_text(text)
        out = tmp_path / "run"
        status = main(["train", "--config", str(config), "--out", str(out), *arguments])
        captured = capsys.readouterr()
        assert status == 2
        assert captured.out == ""
        assert captured.err.count("\n") == 1
        assert not out.exists()
        return captured.err

    return run


def test_all_faults_of_a_configuration_are_told_together(refused):
    message = refused(
        "model: {nam: x}\n"
        "data:\n  sorce: digits\n  train: many\n  protocol: {canvas: 9, contnt: 3}\n"
        "fit: {epochs: two, lr: 1e-3, schedule: step}\n"
        "seed: [1]\nfoo: 1\ntrainer: 3\n"
    )
    assert "config.yaml: 9 things cannot be used: " in message
    for fault in (
        "model.nam is not known (did you mean model.name?)",
        "data.sorce is not known (did you mean data.source?)",
        "data.train must be a whole number or null, got 'many'",
        "data.protocol.contnt is not known (did you mean data.protocol.content?)",
        "fit.epochs must be a whole number, got 'two'",
        "fit.schedule must be one of onecycle, constant, steps, plateau, cosine, got 'step'",
        "seed must be a whole number, got [1]",
        "foo is not known (there are model, data, fit, trainer, seed, out",
        "trainer must hold options by name, got 3",
    ):
        assert fault in message, fault


def test_what_dataclasses_refuse_is_told_with_the_rest(refused):
    message = refused(
        "model: {options: {num_classes: 3}}\n"
        "data: {split_seed: -1, protocol: {canvas: 0}}\nfit: {epochs: 0}\n"
    )
    assert "3 things cannot be used" in message
    assert "model: num_classes of a model come from the data" in message
    assert "data.protocol: canvas must be a whole number" in message
    assert "fit: fit needs epochs >= 1" in message


def test_later_options_may_mend_what_a_dataclass_would_refuse(capsys, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(
        "data: {train: 60, validation: 20, test: 20}\nfit: {epochs: 2, schedule: steps}\n"
    )
    arguments = ["train", "--config", str(config), "--out", str(tmp_path / "run")]
    assert main(arguments) == 2
    assert "schedule='steps' needs milestones" in capsys.readouterr().err
    assert main([*arguments, "--fit.milestones", "[1]"]) == 0


def test_two_files_are_checked_as_they_add_up(capsys, tmp_path):
    (tmp_path / "a.yaml").write_text("fit: {epochs: 0}\nseed: x\n")
    (tmp_path / "b.yaml").write_text("fit: {epochs: 1}\nsede: 1\n")
    files = [f"--config={tmp_path / name}.yaml" for name in "ab"]
    assert main(["train", *files]) == 2
    message = capsys.readouterr().err
    assert "a.yaml: 1 thing cannot be used: seed must be a whole number, got 'x'" in message
    assert "b.yaml: 1 thing cannot be used: sede is not known (did you mean seed?)" in message


def test_dotted_keys_are_keys(refused, capsys, tmp_path):
    message = refused("fit.epochs: 3\ndata: {protocol.contnt: 3}\nfit.sede.x: 1\nfit.lr: much\n")
    assert "3 things cannot be used: " in message
    assert "fit.epochs" not in message
    assert "data.protocol.contnt is not known (did you mean data.protocol.content?)" in message
    assert "fit.sede.x is not known" in message
    assert "fit.lr must be a number, got 'much'" in message
    config = tmp_path / "config.yaml"
    config.write_text("data.train: 60\ndata.validation: 20\ndata.test: 20\nfit.epochs: 1\n")
    out = tmp_path / "run"
    assert main(["train", "--config", str(config), "--out", str(out)]) == 0
    assert settings(out)["data"]["train"] == 60


@pytest.mark.parametrize(
    "text", ["fit: {epochs: 3}\nfit.lr: 0.1\n", "fit.lr: 0.1\nfit: {epochs: 3}\n"]
)
def test_nested_and_dotted_keys_add_up(tmp_path, text):
    (tmp_path / "config.yaml").write_text(text)
    fit = parse_call(train, ["--config", str(tmp_path / "config.yaml")], "")["fit"]
    assert (fit.epochs, fit.lr) == (3, 0.1)


def test_null_is_taken_only_where_it_means_something(refused):
    message = refused(
        "fit: {lr: null, ema: null}\nmodel: {options: null}\nseed: null\n"
        "data: {root: null, split: null, protocol: null, train: x}\n"
    )
    assert "5 things cannot be used: " in message
    assert "fit.lr must be a number, got null; leave it out for its default" in message
    assert "model.options must be a mapping of names to values, got null" in message
    assert "seed must be a whole number, got null" in message
    assert "data.protocol must hold options by name, got None" in message


@pytest.mark.parametrize(
    "mend",
    [
        ["--data", '{"protocol": {"canvas": 28}}'],
        ['--data={"protocol": {"canvas": 28}}'],
        ["--data.protocol", '{"canvas": 28}'],
        ["--data.protocol.canvas=28"],
    ],
)
def test_options_above_may_mend_what_a_dataclass_would_refuse(capsys, tmp_path, mend):
    config = tmp_path / "config.yaml"
    config.write_text(
        "data: {train: 60, validation: 20, test: 20, protocol: {canvas: 0}}\nfit: {epochs: 1}\n"
    )
    arguments = ["train", "--config", str(config), "--out", str(tmp_path / "run")]
    assert main(arguments) == 2
    assert "data.protocol: canvas must be" in capsys.readouterr().err
    assert main([*arguments, *mend]) == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fit: {epochs: 1\n", "is not YAML"),
        ("- 1\n", "must hold options by name, such as 'seed: 1', got list"),
        ("", "must hold options by name"),
    ],
)
def test_files_that_are_no_configurations(refused, text, message):
    assert message in refused(text)


# Shorthands


@pytest.fixture
def photos(tmp_path):
    from pictures import folder

    return folder(tmp_path / "photos", 40)


def settings(folder):
    return yaml.safe_load((folder / "config.yaml").read_text())


def test_a_folder_of_photos_needs_no_more_than_its_name_and_a_net_s(capsys, photos, tmp_path):
    out = tmp_path / "run"
    line = ["train", "--data", str(photos), "--model", "si_resnet20_cifar", "--fit.epochs", "1"]
    assert main([*line, "--out", str(out)]) == 0
    recipe = settings(out)
    assert recipe["data"]["source"] == "folder"
    assert recipe["data"]["root"] == str(photos)
    assert (recipe["data"]["protocol"]["canvas"], recipe["data"]["protocol"]["content"]) == (32, 32)
    assert recipe["model"]["name"] == "si_resnet20_cifar"
    printed = " ".join(capsys.readouterr().out.split())
    assert "shown on 32×32 pixels, what si_resnet20_cifar was made for" in printed


@pytest.mark.parametrize(
    ("more", "sizes"),
    [
        (["--data.protocol.canvas", "20"], (20, 12)),
        (["--data.protocol.content=9"], (28, 9)),
        (["--config", "{config}"], (24, 10)),
        ([], (28, 28)),  # what cnn_small was made for
    ],
)
def test_sizes_that_are_said_stay(capsys, photos, tmp_path, more, sizes):
    config = tmp_path / "config.yaml"
    config.write_text("data: {protocol: {canvas: 24, content: 10}}\n")
    more = [word.format(config=config) for word in more]
    out = tmp_path / "run"
    assert main(["train", f"--data={photos}", "--fit.epochs", "1", "--out", str(out), *more]) == 0
    protocol = settings(out)["data"]["protocol"]
    assert (protocol["canvas"], protocol["content"]) == sizes


def test_a_stream_by_its_name(capsys, photos, tmp_path):
    out = tmp_path / "run"
    line = f"train --data stream_folder --data.root {photos} --data.workers 1 --fit.epochs 1 --out {out}"
    assert main(line.split()) == 0
    recipe = settings(out)["data"]
    assert (recipe["source"], recipe["root"], recipe["protocol"]["canvas"]) == (
        "stream_folder",
        str(photos),
        28,
    )
    assert recipe["max_skipped"] == 0.01


def test_names_of_data_sets_and_nets_with_other_options(capsys, tmp_path):
    out = tmp_path / "run"
    line = "--data digits --data.train 60 --data.validation 20 --data.test 20 --fit.epochs 1"
    options = ["--model=si_cnn_small", "--model.options", "{scales: [0.5, 1]}"]
    assert main(["train", *line.split(), *options, "--out", str(out)]) == 0
    recipe = settings(out)
    assert (recipe["data"]["source"], recipe["data"]["train"]) == ("digits", 60)
    model = recipe["model"]
    assert (model["name"], model["options"]) == ("si_cnn_small", {"scales": [0.5, 1]})
    assert recipe["data"]["protocol"]["canvas"] == 28


def test_options_in_yaml_still_work(capsys, tmp_path):
    out = tmp_path / "run"
    words = ["--data", "{train: 60, validation: 20, test: 20}", "--fit", "{epochs: 1}"]
    assert main(["train", *words, "--out", str(out)]) == 0
    assert settings(out)["data"]["train"] == 60
    (tmp_path / "data.yaml").write_text("{train: 70, validation: 20, test: 20}\n")
    words = ["--data", str(tmp_path / "data.yaml"), "--fit", "{epochs: 1}"]
    assert main(["train", *words, "--out", str(tmp_path / "other")]) == 0
    assert settings(tmp_path / "other")["data"]["train"] == 70


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--data nowhere", "--data takes a folder of images, or one of digits, .*got 'nowhere'"),
        ("--data cifar11", "got 'cifar11', which is neither; make the folder, or mend the name"),
        ("--model nothing", "no model is named 'nothing'"),
        ("--data", "--data"),
    ],
)
def test_what_is_neither(capsys, tmp_path, line, message):
    import re

    assert main(["train", "--out", str(tmp_path / "run"), *line.split()]) == 2
    assert re.search(message, capsys.readouterr().err)
