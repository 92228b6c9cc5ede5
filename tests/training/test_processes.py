"""Several processes train what one trains."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import distributed

from nearfar.data import DataSpec, ScaleProtocol
from nearfar.data.dataset import EpochBatches
from nearfar.errors import InputError
from nearfar.training import FitSpec, ModelSpec, TrainerSpec, train
from nearfar.training.lightning_trainer import count_devices
from nearfar.training.processes import ProcessInfo, find_process

# The package exports the function under the module's name.
train_module = importlib.import_module("nearfar.training.train")

MODEL = ModelSpec("cnn_small", {"norm": True})
# Last batches of 4 and 5 images; batches of an update differ in size.
DATA = DataSpec(
    protocol=ScaleProtocol(16, 12), train=36, validation=21, test=20,
    normalize="standard", augment="crop_flip", pad=2,
)  # fmt: skip
FIT = FitSpec(
    epochs=3, batch_size=8, lr=0.05, optimizer="momentum", schedule="constant",
    accumulate=2, clip=1.0, ema=0.5, mixup=0.3,
)  # fmt: skip


def close(one, two):
    """What docs/training.md promises."""
    for key, tensor in one.model.state_dict().items():
        torch.testing.assert_close(two.model.state_dict()[key], tensor, rtol=1e-4, atol=1e-5)
    name = "metrics.csv"
    rows = [(c.path.parent / name).read_text().splitlines() for c in (one, two)]
    assert rows[0][0] == rows[1][0]
    for left, right in zip(rows[0][1:], rows[1][1:], strict=True):
        numbers = ([float(x or -1) for x in row.split(",")] for row in (left, right))
        assert next(numbers) == pytest.approx(next(numbers), rel=1e-4)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return train(MODEL, DATA, FIT, TrainerSpec(), 3, tmp_path_factory.mktemp("runs") / "one")


def test_two_processes_train_what_one_does(alone, tmp_path, capfd):
    steps = []
    address = os.environ.get("MASTER_ADDR")
    threads = torch.get_num_threads()
    two = train(
        MODEL, DATA, FIT, TrainerSpec(devices=2, strategy="ddp"), 3, tmp_path,
        lambda step: steps.append(step.done),
    )  # fmt: skip
    close(alone, two)
    assert steps == [1, 2, 3]
    assert capfd.readouterr().out == ""
    assert {p.name for p in (tmp_path / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    # Nothing is left behind that would be in the way of the next training.
    assert not distributed.is_initialized()
    assert os.environ.get("MASTER_ADDR") == address
    assert torch.get_num_threads() == threads


@pytest.mark.slow
def test_torchrun(alone, tmp_path):
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone",
        str(Path(sys.executable).parent / "nearfar"),
        "train", "--config", str(alone.path.parent / "config.yaml"),
        "--trainer.devices", "2", "--out", str(tmp_path / "out"),
    ]  # fmt: skip
    subprocess.run(command, check=True, timeout=300)
    close(alone, train(MODEL, DATA, FIT, TrainerSpec(devices=2), 3, tmp_path / "out"))


def test_a_process_that_cannot_take_part_is_said(tmp_path):
    import dropping  # noqa: F401 (registers a net, here only)

    with pytest.raises(
        InputError, match="no model is named 'dropping_cnn'.*In a training process of its own"
    ):
        train(ModelSpec("dropping_cnn"), DATA, FIT, TrainerSpec(devices=2), out=tmp_path)


SCRIPT = """
import sys
from timm.models import register_model
from nearfar.data import DataSpec
from nearfar.models.cnn_small import SmallCNN
from nearfar.training import FitSpec, ModelSpec, TrainerSpec, train

@register_model
def own_cnn(num_classes=10, in_chans=3, **_):
    return SmallCNN(num_classes, in_chans)

if {condition}:
    data, fit = DataSpec(train=40, validation=20, test=20), FitSpec(epochs=1, batch_size=20)
    train(ModelSpec("own_cnn"), data, fit, TrainerSpec(devices=2), out=sys.argv[1])
"""


@pytest.mark.slow
@pytest.mark.parametrize("condition", ["__name__ == '__main__'", "True"])
def test_a_script_s_own_network_trains_in_processes_that_import_the_script(tmp_path, condition):
    script, out = tmp_path / "script.py", tmp_path / "run"
    script.write_text(SCRIPT.format(condition=condition))
    run = subprocess.run(
        [sys.executable, str(script), str(out)], capture_output=True, text=True, timeout=120
    )
    if condition == "True":
        assert run.returncode == 1
        assert "call train() under `if __name__ == '__main__':`" in run.stderr
    else:
        assert run.returncode == 0, run.stderr
        assert (out / "weights.safetensors").exists()


@pytest.mark.parametrize(("count", "size"), [(36, 8), (37, 8), (5, 8), (8, 3)])
def test_each_batch_is_shared_out_in_pairs(count, size):
    whole = EpochBatches(count, size, seed=1)
    for processes in (2, 3):
        samplers = [EpochBatches(count, size, 1, rank, processes) for rank in range(processes)]
        for sampler in (whole, *samplers):
            sampler.set_epoch(2)
        batches = [list(sampler) for sampler in samplers]
        assert [len(one) for one in batches] == [len(sampler) for sampler in samplers]
        for number, (epoch, batch) in enumerate(whole):
            shares = [one[number][1] for one in batches if number < len(one)]
            assert epoch == 2
            assert sorted(index for share in shares for index in share) == sorted(batch)
            mirror = dict(zip(batch, reversed(batch), strict=True))
            for share in shares:  # so mixing a share with its reverse mixes as in the whole batch
                assert [mirror[index] for index in share] == share[::-1]


def test_batches_too_small_to_share_are_refused(tmp_path):
    spec = FitSpec(epochs=1, batch_size=35)
    with pytest.raises(InputError, match="the last of 36 training images in batches of 35 has 1"):
        train(MODEL, DATA, spec, TrainerSpec(devices=2), out=tmp_path)


@pytest.mark.parametrize(
    ("spec", "environment", "message"),
    [
        ({"strategy": "fsdp"}, {}, "strategy 'fsdp' needs GPUs, got accelerator='cpu'"),
        ({"devices": 2, "strategy": "ddp_spawn"}, {}, "one of 'auto', 'ddp', .* got 'ddp_spawn'"),
        ({"num_nodes": 2}, {}, "num_nodes=2 needs a process on every machine"),
        (
            {},
            {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "4", "RANK": "0"},
            "torchrun started 4 processes, but devices × num_nodes = 1 × 1",
        ),
        ({"devices": 0}, {}, "trainer settings cannot be used"),
        ({"devices": "many"}, {}, "trainer settings cannot be used"),
    ],
)
def test_refusals(monkeypatch, tmp_path, spec, environment, message):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=message):
        train(MODEL, DATA, FIT, TrainerSpec(**spec), out=tmp_path)
    assert not any(tmp_path.iterdir())


def test_processes_are_read_from_torchrun_and_slurm(monkeypatch):
    with monkeypatch.context() as patch:
        for name, value in {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "4", "RANK": "3"}.items():
            patch.setenv(name, value)
        process = find_process(TrainerSpec(num_nodes=2), 2)
        assert (process.rank, process.world_size, process.launched) == (3, 4, True)
    for name, value in {
        "SLURM_NTASKS": "4",
        "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_PROCID": "2",
        "SLURM_JOB_NAME": "job",
    }.items():
        monkeypatch.setenv(name, value)
    process = find_process(TrainerSpec(num_nodes=2), 2)
    assert (process.rank, process.world_size, process.launched) == (2, 4, True)
    assert process.environment is not None
    assert not process.environment.auto_requeue


def test_a_running_mean_is_not_for_weights_that_are_shared_out(tmp_path, monkeypatch):
    monkeypatch.setattr(train_module, "find_process", lambda spec, devices: ProcessInfo())
    with pytest.raises(
        InputError, match="ema=0.5 cannot follow weights that strategy='fsdp' shares out"
    ):
        train(MODEL, DATA, FIT, TrainerSpec(strategy="fsdp"), out=tmp_path)


def test_automatic_devices_are_counted():
    assert count_devices(TrainerSpec(devices="auto")) == 1
    assert count_devices(TrainerSpec(devices="2")) == 2
