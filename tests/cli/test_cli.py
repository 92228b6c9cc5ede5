from __future__ import annotations

import json
import logging
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
import yaml
from PIL import Image

from nearfar.cli import main
from nearfar.cli.main import COMMANDS


@pytest.fixture(autouse=True)
def _lightning_s_loggers():
    names = ("lightning", "lightning.pytorch", "lightning.fabric")
    levels = {name: logging.getLogger(name).level for name in names}
    yield
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def run_command(capsys, *arguments):
    status = main(list(arguments))
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",), ("help",)])
def test_help_names_every_command(capsys, arguments):
    status, out, err = run_command(capsys, *arguments)
    assert (status, err) == (0, "")
    for name, what in COMMANDS.items():
        assert name in out
        assert what in out


def test_version(capsys):
    import nearfar

    assert run_command(capsys, "--version") == (0, f"nearfar {nearfar.__version__}\n", "")


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_s_help_shows_its_examples_and_options(capsys, name):
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert f"examples:\n  nearfar {name}" in out
    assert "--out" in out
    assert "progress" not in out.split("examples:")[0].split("options:")[1]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("nonsense", "nearfar: error: no command is named 'nonsense'; there are quickstart, train"),
        ("trian", "no command is named 'trian'; did you mean train"),
        (
            "quickstart --nonsense 1",
            r"no option is named --nonsense \(there are out, seed, fast\)",
        ),
        (
            "quickstart --seed x",
            "seed must be a whole number, got 'x'; see 'nearfar quickstart --help'",
        ),
        ("quickstart --seed -1", "seed must be from 0 to 4294967295, got -1"),
        ("quickstart --out README.md", "README.md"),
        ("quickstart --out src", "src is not empty and holds no quickstart run; choose another"),
        ("train --config nowhere.yaml", r"No such file or directory \(nowhere.yaml\)"),
        ("train --fit.epochs 0", "fit needs epochs >= 1.* got epochs=0"),
        ("train --fit.epochs two", "fit.epochs must be a whole number, got 'two'"),
        (
            "train --fit.schedule step",
            "fit.schedule must be one of onecycle, constant, steps, plateau, cosine, got 'step'",
        ),
        ("train --fit.epoch 3", r"no option is named --fit.epoch \(did you mean fit.epochs\?\)"),
        (
            "train --fit.epochs two --fit.lr much",
            "fit.epochs must be .* got 'two'; fit.lr must be a number",
        ),
        ("train --fit.epochs", "--fit.epochs needs a value"),
        ("train --fit.epochs --fit.lr 1", "--fit.epochs needs a value"),
        (
            "train --strange.thing 1",
            r"strange.thing \(there are model, data, fit, trainer, seed, out\)",
        ),
        ("train -x 1", "no option is named -x"),
        ("train somewhere", "unrecognized arguments: somewhere"),
        ("train --fit 3", "fit must hold options by name, got '3'"),
        (
            "train --data.random_scale 0.4",
            "data.random_scale must be 2 numbers with commas between or null, got '0.4'",
        ),
        (
            "train --model.mean 0.4,x",
            "model.mean must be numbers with commas between, got '0.4,x'",
        ),
        ("train --model.name nothing --out {tmp}", "no model is named 'nothing'"),
        ("train --data.source nothing --out {tmp}", "no data set is named 'nothing'"),
        (
            "train --data.source folder --out {tmp}",
            "a folder source needs as its root an existing folder",
        ),
        ("train --fit.schedule steps", "schedule='steps' needs milestones"),
        ("train --fit.momentum 0.9 --out {tmp}", "the optimizer 'adamw' takes no momentum"),
        (
            "train --data.protocol.canvas 0",
            "data.protocol: canvas must be a whole number from 1 to 16384 pixels.* got canvas=0",
        ),
        (
            "train --model.options '{{levels: [3]}}' --model.name cnn_small --out {tmp}",
            "does not take these options",
        ),
        ("audit", "models"),
        ("audit nowhere.safetensors", "no checkpoint at nowhere.safetensors"),
        ("audit README.md", "README.md is a file, but no .safetensors of nearfar's"),
    ],
)
def test_bad_input_is_one_clear_line_and_status_2(capsys, tmp_path, line, message):
    arguments = shlex.split(line.format(tmp=tmp_path))
    status, out, err = run_command(capsys, *arguments)
    assert status == 2
    assert out == ""
    assert err.count("\n") == 1, err
    assert err.startswith("nearfar")
    assert "error: " in err
    assert re.search(message, err), err


def test_unknown_keys_in_a_file_are_named(capsys, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text("fit:\n  epohcs: 3\n")
    status, _, err = run_command(capsys, "train", "--config", str(config))
    assert status == 2
    assert "epohcs" in err
    assert err.count("\n") == 1


def test_train_then_audit(capsys, tmp_path):
    out = tmp_path / "run"
    config = tmp_path / "config.yaml"
    config.write_text(
        "model: {name: pyramid_cnn_small, options: {levels: [2, 1]}}\n"
        "data: {train: 128, validation: 60, test: 60}\nfit: {epochs: 3}\nseed: 4\n"
    )
    status, printed, err = run_command(
        capsys, "train", "--config", str(config), "--fit.epochs", "1", "--out", str(out)
    )
    assert (status, err) == (0, "")
    weights = out / "weights.safetensors"
    assert f"nearfar audit {weights}" in printed
    written = yaml.safe_load((out / "config.yaml").read_text())
    assert written["model"]["options"] == {"levels": [2, 1]}
    assert (written["fit"]["epochs"], written["seed"]) == (1, 4)
    status, printed, err = run_command(
        capsys,
        *(
            "audit",
            str(weights),
            "--scales",
            "[0.5,1]",
            "--out",
            str(tmp_path / "a"),
        ),
    )
    assert (status, err) == (0, "")
    assert "0.5×" in printed
    audit = json.loads((tmp_path / "a" / "audit.json").read_text())
    assert audit["scales"] == [0.5, 1.0]
    # What a run wrote reproduces it.
    status, _, err = run_command(
        capsys, "train", "--config", str(out / "config.yaml"), "--out", str(tmp_path / "again")
    )
    assert (status, err) == (0, "")
    assert (tmp_path / "again" / "weights.safetensors").read_bytes() == weights.read_bytes()


def test_train_and_audit_on_a_folder_of_one_s_own(capsys, tmp_path):
    pixels = np.random.default_rng(0)
    for part, count in (("train", 20), ("test", 5)):
        for kind, level in (("dark", 60), ("light", 160)):
            (tmp_path / "images" / part / kind).mkdir(parents=True)
            for i in range(count):
                shape = (pixels.integers(9, 40), pixels.integers(9, 40), 3)
                noise = pixels.integers(level, level + 60, shape, dtype=np.uint8)
                Image.fromarray(noise).save(tmp_path / "images" / part / kind / f"{i}.jpg")
    line = f"train --data.source folder --data.root {tmp_path / 'images'} --model.name cnn_small"
    status, _, err = run_command(capsys, *shlex.split(line), "--out", str(tmp_path / "a"))
    assert (status, err) == (0, "")
    written = yaml.safe_load((tmp_path / "a" / "config.yaml").read_text())["data"]
    assert (written["train"], written["validation"]) == (0, 0)
    recipe = (
        "--data.split official --data.augment crop_flip --data.normalize standard "
        "--fit.optimizer momentum --fit.momentum 0.9 --fit.schedule steps --fit.epochs 4 "
        "--fit.milestones [2,3] --fit.warmup_epochs 1 --fit.warmup_lr 0.001 --fit.decay_all true"
    )
    out = tmp_path / "b"
    status, _, err = run_command(capsys, *shlex.split(f"{line} {recipe}"), "--out", str(out))
    assert (status, err) == (0, "")
    fit = yaml.safe_load((out / "config.yaml").read_text())["fit"]
    assert (fit["milestones"], fit["decay_all"], fit["warmup_lr"]) == ([2, 3], True, 0.001)
    status, printed, err = run_command(capsys, "audit", str(out / "weights.safetensors"))
    assert (status, err) == (0, "")
    assert "10 test images of folder" in " ".join(printed.split())
    # What a run wrote reproduces it.
    again = ("--config", str(out / "config.yaml"), "--out", str(tmp_path / "c"))
    assert run_command(capsys, "train", *again)[0] == 0
    weights = [(tmp_path / run / "weights.safetensors").read_bytes() for run in "bc"]
    assert weights[0] == weights[1]


def test_interruption_ends_with_130(capsys, monkeypatch):
    import nearfar.cli.train as command

    def interrupted(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "run", interrupted)
    status, _, err = run_command(capsys, "train")
    assert status == 130
    assert "start the same command again to continue" in err


def test_a_full_disk_is_one_line(capsys, monkeypatch):
    import nearfar.cli.train as command

    def full(arguments):
        raise OSError(28, "No space left on device", "runs/x")

    monkeypatch.setattr(command, "run", full)
    assert run_command(capsys, "train") == (
        2,
        "",
        "nearfar train: error: No space left on device (runs/x)\n",
    )


def test_the_console_script_is_installed():
    done = subprocess.run(
        [sys.executable, "-c", "from nearfar.cli import main; raise SystemExit(main(['bogus']))"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "no command is named 'bogus'" in done.stderr
