"""Batch norm over processes against torch's batch norm over the whole batch."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import nn

from nearfar.errors import InputError
from nearfar.training.sync_batchnorm import SyncedBatchNorm, sync_batch_norms

SCRIPT = """
import sys
import torch
from torch import distributed
from timm.layers import BatchNormAct2d
from torch import nn
from nearfar.training.sync_batchnorm import sync_batch_norms

folder, rank = sys.argv[1], int(sys.argv[2])
store = distributed.FileStore(folder + "/store", 3)
distributed.init_process_group("gloo", store=store, rank=rank, world_size=3)
results = {}
for name, case in torch.load(folder + "/cases.pt", weights_only=True).items():
    norm = {"1d": nn.BatchNorm1d, "2d": nn.BatchNorm2d, "act": BatchNormAct2d}[case["kind"]]
    net = nn.Sequential(norm(3, **case["options"])).to(case["x"].dtype)
    net.load_state_dict(case["state"])
    sync_batch_norms(net)
    outputs, grads = [], []
    for _ in range(2):  # running figures move twice
        x = torch.tensor_split(case["x"], [1, 4])[rank].clone().requires_grad_()
        y = net(x)
        (y.sin() * torch.tensor_split(case["towards"], [1, 4])[rank]).sum().backward()
        outputs.append(y.detach())
        grads.append(x.grad)
    results[name] = {"y": outputs, "x": grads, "state": net.state_dict(),
                     "weights": [p.grad for p in net.parameters()]}
    net.eval()
    results[name]["eval"] = net(case["x"]).detach()
torch.save(results, f"{folder}/results{rank}.pt")
distributed.destroy_process_group()
"""

KINDS = {"1d": nn.BatchNorm1d, "2d": nn.BatchNorm2d, "act": BatchNormAct2d}


def cases():
    torch.manual_seed(0)
    for name, kind, options, shape, dtype in (
        ("plain", "2d", {}, (6, 3, 4, 5), torch.float64),
        ("cumulative", "2d", {"momentum": None}, (6, 3, 2, 2), torch.float64),
        ("bare", "1d", {"affine": False}, (6, 3), torch.float64),
        ("relu", "act", {"momentum": 0.3, "eps": 1e-3}, (6, 3, 4, 4), torch.float64),
        ("far_off", "2d", {}, (6, 3, 4, 5), torch.float32),
    ):
        norm = nn.Sequential(KINDS[kind](3, **options)).to(dtype)
        for parameter in norm.parameters():
            nn.init.normal_(parameter, 1.0, 0.5)
        x = torch.randn(shape, dtype=dtype)
        if name == "far_off":  # where the difference of sums of squares would lose all digits
            x = x + 3000
        towards = torch.randn(shape, dtype=dtype)
        yield name, {"kind": kind, "options": options, "x": x, "towards": towards,
                     "state": norm.state_dict()}  # fmt: skip


def test_three_processes_norm_as_one(tmp_path):
    all_cases = dict(cases())
    torch.save(all_cases, tmp_path / "cases.pt")
    processes = [
        subprocess.Popen([sys.executable, "-c", SCRIPT, str(tmp_path), str(rank)])
        for rank in range(3)
    ]
    assert [process.wait(timeout=120) for process in processes] == [0, 0, 0]
    outputs = [torch.load(tmp_path / f"results{rank}.pt", weights_only=True) for rank in range(3)]
    for name, case in all_cases.items():
        near = {"rtol": 1e-10, "atol": 1e-11} if case["x"].dtype == torch.float64 else {}
        near = near or {"rtol": 1e-3, "atol": 2e-3}  # 3000 leaves four digits of a unit
        net = nn.Sequential(KINDS[case["kind"]](3, **case["options"])).to(case["x"].dtype)
        net.load_state_dict(case["state"])
        of_ranks = [one[name] for one in outputs]
        for step in range(2):
            x = case["x"].clone().requires_grad_()
            y = net(x)
            (y.sin() * case["towards"]).sum().backward()
            torch.testing.assert_close(
                torch.cat([one["y"][step] for one in of_ranks]), y.detach(), **near
            )
            torch.testing.assert_close(
                torch.cat([one["x"][step] for one in of_ranks]), x.grad, **near
            )
        for k, parameter in enumerate(net.parameters()):
            shares = sum(one["weights"][k] for one in of_ranks)
            torch.testing.assert_close(shares, parameter.grad, **near)
        net.eval()
        for one in of_ranks:
            assert one["state"].keys() == net.state_dict().keys()
            for key, tensor in net.state_dict().items():
                torch.testing.assert_close(one["state"][key], tensor, **near)
            assert all(torch.equal(one["state"][k], of_ranks[0]["state"][k]) for k in one["state"])
            torch.testing.assert_close(one["eval"], net(case["x"]).detach(), **near)


def test_a_norm_used_twice_stays_one_and_keeps_its_weights():
    norm = nn.BatchNorm2d(3)
    net = nn.Sequential(norm, nn.Sequential(nn.ReLU(), norm), nn.GroupNorm(1, 3))
    sync_batch_norms(net)
    assert isinstance(net[0], SyncedBatchNorm)
    assert net[0] is net[1][1]
    assert net[0].weight is norm.weight
    assert net[0].running_mean is norm.running_mean
    assert isinstance(net[2], nn.GroupNorm)


def test_norms_of_other_kinds_are_refused():
    class Own(nn.BatchNorm2d):
        pass

    with pytest.raises(InputError, match="a batch norm of the kind Own cannot be synchronised"):
        sync_batch_norms(nn.Sequential(Own(3)))
