"""The processes that train one network together."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import wait
from typing import Any

import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy
from torch import distributed

from nearfar.errors import InputError, first_line
from nearfar.peers import lost_peer
from nearfar.progress import Progress, quiet_lightning
from nearfar.training.specs import TrainerSpec

__all__ = ["ProcessInfo", "find_process", "launch", "peer_fault", "strategy_of"]

#: What the names of launched processes begin with.
_NAME = "training process"
_DDP = {"auto": False, "ddp": False, "ddp_find_unused_parameters_true": True}


@dataclass(frozen=True)
class ProcessInfo:
    """Which of a run's processes this one is.

    Attributes:
        rank: from 0, the one that writes and reports.
        world_size: how many there are.
        environment: where Lightning learns of the others; ``None`` lets it find out.
        launched: whether the others run already; if not, :func:`launch` starts all of them.
    """

    rank: int = 0
    world_size: int = 1
    environment: ClusterEnvironment | None = None
    launched: bool = True


def find_process(spec: TrainerSpec, devices: int) -> ProcessInfo:
    """Finds out which process this is, from the environment.

    Args:
        spec: the trainer's settings.
        devices: how many of this machine they mean.

    Raises:
        InputError: settings that cannot work, or other processes than the settings say.
    """
    world_size = devices * spec.num_nodes
    # Not so on a machine without GPUs, whatever Lightning makes of ``auto``.
    if spec.strategy == "fsdp" and (spec.accelerator == "cpu" or not torch.cuda.is_available()):
        raise InputError(
            f"strategy 'fsdp' needs GPUs, got accelerator={spec.accelerator!r} on a machine with "
            f"{torch.cuda.device_count()} of them; take strategy='ddp', which works on CPUs too"
        )
    if TorchElasticEnvironment.detect():
        started = int(os.environ["WORLD_SIZE"])
        if started != world_size:
            raise InputError(
                f"torchrun started {started} processes, but devices × num_nodes = {devices} × "
                f"{spec.num_nodes}; give trainer.devices its --nproc-per-node and trainer.num_nodes "
                f"its --nnodes"
            )
        return ProcessInfo(int(os.environ["RANK"]), world_size)
    if world_size == 1:
        return ProcessInfo()
    if spec.strategy not in _DDP and spec.strategy != "fsdp":
        raise InputError(
            f"strategy must be one of {', '.join(map(repr, [*_DDP, 'fsdp']))} with several processes, "
            f"got {spec.strategy!r}"
        )
    if "SLURM_NTASKS" in os.environ and SLURMEnvironment.detect():
        # Slurm may start a run again, which then resumes from our state, not from Lightning's.
        environment = SLURMEnvironment(auto_requeue=False)
        return ProcessInfo(int(os.environ["SLURM_PROCID"]), world_size, environment)
    if spec.num_nodes > 1:
        raise InputError(
            f"num_nodes={spec.num_nodes} needs a process on every machine: start the same command on each "
            f"with torchrun, or on all with srun (docs/training.md)"
        )
    if multiprocessing.current_process().name.startswith(_NAME):
        raise InputError(
            "each training process imports the script that starts it, and this script trains when it is "
            "imported; call train() under `if __name__ == '__main__':`"
        )
    return ProcessInfo(0, world_size, launched=False)


def strategy_of(spec: TrainerSpec, process: ProcessInfo) -> Any:
    """The ``strategy`` of ``lightning.Trainer``."""
    if spec.strategy not in _DDP:
        return spec.strategy
    if process.world_size == 1:
        return "auto"
    # Buffers are the same in all processes; sending them about would only cost time.
    return DDPStrategy(
        broadcast_buffers=False,
        find_unused_parameters=_DDP[spec.strategy],
        timeout=timedelta(seconds=spec.peer_timeout),
    )


def peer_fault(fault: RuntimeError, spec: TrainerSpec) -> InputError | None:
    """What to say where a fault is that another process has ended or does not answer; else nothing.

    Args:
        fault: as a collective operation raised it.
        spec: of the run.
    """
    if not lost_peer(fault):
        return None
    return InputError(
        f"another process of this run has ended, or did not answer within {spec.peer_timeout} s "
        f"({first_line(fault)}); start the same command again to go on from the last state"
    )


def launch(
    target: Callable[..., object],
    arguments: tuple[Any, ...],
    world_size: int,
    threads: int,
    progress: Progress,
) -> None:
    """Runs a function in several new processes of this machine, and waits for them.

    They end with this process, however it ends. Only this one is interrupted by Ctrl-C.

    Args:
        target: called as ``target(*arguments, process, progress)`` in each; importable by name.
        arguments: what ``pickle`` takes.
        world_size: how many processes.
        threads: of torch, in each process.
        progress: called here with what they report.

    Raises:
        InputError: as ``target`` raises it, or a process was ended by a signal.
        RuntimeError: a process ended otherwise before it was done.
    """
    context = multiprocessing.get_context("spawn")
    messages = context.SimpleQueue()
    settings = (world_size, _free_port(), threads, messages, target, arguments)
    processes = [
        context.Process(target=_run_process, args=(rank, *settings), name=f"{_NAME} {rank}")
        for rank in range(world_size)
    ]

    def forward_messages() -> None:
        while not messages.empty():
            message = messages.get()
            if isinstance(message, InputError):
                raise message
            progress(message)

    try:
        with _interruptions_blocked():
            for process in processes:
                process.start()
        while any(process.is_alive() for process in processes):
            wait([process.sentinel for process in processes if process.is_alive()], timeout=0.1)
            failed = [process for process in processes if process.exitcode]
            forward_messages()  # a refused process says why before it ends
            if failed and (failed[0].exitcode or 0) < 0:
                raise InputError(
                    f"{failed[0].name} was ended by signal {-(failed[0].exitcode or 0)}, as the system does "
                    f"where memory runs out; start the same command again to go on from the last state"
                )
            if failed:
                raise RuntimeError(
                    f"{failed[0].name} ended with status {failed[0].exitcode}; its messages stand above"
                )
        forward_messages()
    finally:
        for process in processes:
            if process.pid is not None:
                process.kill()
                process.join()


def _run_process(
    rank: int,
    world_size: int,
    port: int,
    threads: int,
    messages: Any,
    target: Callable[..., object],
    arguments: tuple[Any, ...],
) -> None:
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    quiet_lightning()
    torch.set_num_threads(threads)
    # From which LightningEnvironment knows that it has nothing to launch.
    os.environ.update(LOCAL_RANK=str(rank), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    try:
        target(*arguments, ProcessInfo(rank, world_size, LightningEnvironment()), messages.put)
    except InputError as fault:
        messages.put(InputError(str(fault)))
        sys.exit(2)
    if distributed.is_initialized():
        distributed.destroy_process_group()


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


@contextmanager
def _interruptions_blocked() -> Iterator[None]:
    """Delays Ctrl-C; processes that are started meanwhile never see it."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
