"""The processes that train one network together."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy
from torch import distributed

from nearfar.errors import InputError
from nearfar.training.specs import Recipe, TrainerSpec

__all__ = ["Place", "find_place", "join", "others", "strategy_of"]

_DDP = {"auto": False, "ddp": False, "ddp_find_unused_parameters_true": True}


@dataclass
class Place:
    """Which of a run's processes this one is.

    Attributes:
        rank: from 0, the one that writes and reports.
        world: how many there are.
        environment: where Lightning learns of the others; ``None`` lets it find out.
        ours: whether nearfar starts the others, or was started so.
        waiting: those that this process started.
    """

    rank: int = 0
    world: int = 1
    environment: ClusterEnvironment | None = None
    ours: bool = False
    waiting: list[subprocess.Popen[str]] = field(default_factory=list)

    def meet(self) -> None:
        """Waits until all processes that were started here are ready to train.

        Raises:
            InputError: one of them cannot take part.
        """
        for process in self.waiting:
            assert process.stdout is not None
            said = process.stdout.readline().strip()
            if said != "ready":
                raise InputError(
                    f"a training process beside this one stopped: {said or 'see its messages above'}. It "
                    f"knows only the models and optimizers of nearfar and timm; start a script that "
                    f"registers others with torchrun"
                )
        if self.rank and self.ours:
            print("ready", file=sys.__stdout__, flush=True)


class _Known(ClusterEnvironment):
    """Processes of one machine that nearfar starts itself."""

    def __init__(self, rank: int, world: int, port: int) -> None:
        super().__init__()
        self.rank, self.world, self.port = rank, world, port

    @property
    def creates_processes_externally(self) -> bool:
        return True

    @property
    def main_address(self) -> str:
        return "127.0.0.1"

    @property
    def main_port(self) -> int:
        return self.port

    @staticmethod
    def detect() -> bool:
        return False

    def world_size(self) -> int:
        return self.world

    def set_world_size(self, size: int) -> None:
        assert size == self.world

    def global_rank(self) -> int:
        return self.rank

    def set_global_rank(self, rank: int) -> None:
        assert rank == self.rank

    def local_rank(self) -> int:
        return self.rank

    def node_rank(self) -> int:
        return 0


def find_place(spec: TrainerSpec, devices: int) -> Place:
    """Where this process stands, before anything was started.

    Args:
        spec: the trainer's settings.
        devices: how many of this machine they mean.

    Raises:
        InputError: settings that cannot work, or other processes than the settings say.
    """
    world = devices * spec.num_nodes
    # Not so on a machine without GPUs, whatever Lightning makes of ``auto``.
    if spec.strategy == "fsdp" and (spec.accelerator == "cpu" or not torch.cuda.is_available()):
        raise InputError(
            f"strategy 'fsdp' needs GPUs, got accelerator={spec.accelerator!r} on a machine with "
            f"{torch.cuda.device_count()} of them; take strategy='ddp', which works on CPUs too"
        )
    if TorchElasticEnvironment.detect():
        started = int(os.environ["WORLD_SIZE"])
        if started != world:
            raise InputError(
                f"torchrun started {started} processes, but devices × num_nodes = {devices} × "
                f"{spec.num_nodes}; give trainer.devices its --nproc-per-node and trainer.num_nodes "
                f"its --nnodes"
            )
        return Place(int(os.environ["RANK"]), world)
    if world == 1:
        return Place()
    if spec.strategy not in _DDP and spec.strategy != "fsdp":
        raise InputError(
            f"strategy must be one of {', '.join(map(repr, [*_DDP, 'fsdp']))} with several processes, "
            f"got {spec.strategy!r}"
        )
    if "SLURM_NTASKS" in os.environ and SLURMEnvironment.detect():
        # Slurm may start a run again; what it goes on from is ours, not Lightning's.
        return Place(int(os.environ["SLURM_PROCID"]), world, SLURMEnvironment(auto_requeue=False))
    if spec.num_nodes > 1:
        raise InputError(
            f"num_nodes={spec.num_nodes} needs a process on every machine: start the same command on each "
            f"with torchrun, or on all with srun (docs/training.md)"
        )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return join(0, world, free.getsockname()[1])


def join(rank: int, world: int, port: int) -> Place:
    """The place of a process among those that nearfar starts on one machine."""
    return Place(rank, world, _Known(rank, world, port), ours=True)


def strategy_of(spec: TrainerSpec, place: Place) -> Any:
    """As ``lightning.Trainer`` takes it."""
    if spec.strategy not in _DDP:
        return spec.strategy
    if place.world == 1:
        return "auto"
    unused = _DDP[spec.strategy]
    # Buffers move alike in all processes; sending them about would only cost time.
    return DDPStrategy(broadcast_buffers=False, find_unused_parameters=unused)


@contextmanager
def others(place: Place, recipe: Recipe, out: Path) -> Iterator[None]:
    """Starts the other processes if that is nearfar's to do, and ends them."""
    if not place.ours or place.rank:
        yield
        return
    assert isinstance(place.environment, _Known)
    threads = torch.get_num_threads()
    each = max(1, threads // place.world) if recipe.trainer.accelerator == "cpu" else threads
    before = {key: os.environ.get(key) for key in ("MASTER_ADDR", "MASTER_PORT")}
    try:
        for rank in range(1, place.world):
            task = {
                "recipe": recipe.as_dict(),
                "out": str(out.absolute()),
                "place": [rank, place.world, place.environment.port],
                "threads": each,
            }
            place.waiting.append(_start(rank, task))
        torch.set_num_threads(each)
        yield
    finally:
        torch.set_num_threads(threads)
        if distributed.is_initialized():
            distributed.destroy_process_group()
        for key, value in before.items():
            os.environ.pop(key, None)
            if value is not None:
                os.environ[key] = value
        for process in place.waiting:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.close()  # which it takes as its end
            process.wait()
            process.stdout.close()


def _start(rank: int, task: dict[str, Any]) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "nearfar.training.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "LOCAL_RANK": str(rank)},  # from which Lightning knows who may speak
        start_new_session=True,  # an interruption at the keyboard is the first process's to handle
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(task) + "\n")
    process.stdin.flush()
    return process
