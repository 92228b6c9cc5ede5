"""The processes that share the images of one measurement, on one machine or on several."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor, distributed

from nearfar.errors import InputError, first_line

__all__ = ["ALONE", "Peers", "joined_peers", "lost_peer"]

_Item = TypeVar("_Item")
#: What gloo and NCCL say of others that are gone or silent.
_LOST = re.compile(
    r"[Tt]imed out|[Cc]onnection (closed|reset|refused)|[Bb]roken pipe|[Tt]imeout", re.ASCII
)


@dataclass(frozen=True)
class Peers:
    """Which of the processes that measure together this one is; by itself it is the only one.

    Attributes:
        rank: from 0, the one that writes and reports.
        world_size: how many there are.
    """

    rank: int = 0
    world_size: int = 1

    def share(self, items: Sequence[_Item]) -> list[_Item]:
        """This process's part of what all have to do: every ``world_size``-th item."""
        return list(items[self.rank :: self.world_size])

    def add_up(self, tensor: Tensor) -> Tensor:
        """The sum of a tensor over all processes; exact where all but one have zeros.

        Raises:
            InputError: another process has ended, or does not answer.
        """
        if self.world_size == 1:
            return tensor
        total = tensor.to(torch.uint8) if tensor.dtype == torch.bool else tensor.clone()
        with _telling_of_lost_peers():
            distributed.all_reduce(total)
        return total.to(tensor.dtype)

    def of_first(self, make: Callable[[], _Item]) -> _Item:
        """What the first process makes, in all of them; the others do not call ``make``.

        Raises:
            InputError: another process has ended, or does not answer.
        """
        if self.world_size == 1:
            return make()
        values = [make() if self.rank == 0 else None]
        with _telling_of_lost_peers():
            distributed.broadcast_object_list(values)
        return values[0]  # type: ignore[return-value]


#: A process by itself.
ALONE = Peers()


@contextmanager
def joined_peers(timeout: float = 1800.0) -> Iterator[Peers]:
    """Within it, the processes that ``torchrun`` or Slurm's ``srun`` started for one command are joined.

    A command that was started by neither is alone. They talk through gloo, on CPUs.

    Args:
        timeout: seconds that one waits for the others where they meet, which is longer than the slowest
            needs for its share beyond the fastest.

    Raises:
        InputError: the others cannot be reached.

    Limits:
        Every one of the processes has to come here. A process group that exists already is left alone:
        whoever made it may have sent one process only.
    """
    environment = None if distributed.is_initialized() else _environment()
    if environment is None:
        yield ALONE
        return
    rank, world_size, address = environment
    try:
        distributed.init_process_group(
            "gloo",
            init_method=address,
            rank=rank,
            world_size=world_size,
            timeout=timedelta(seconds=timeout),
        )
    except RuntimeError as cause:
        raise InputError(
            f"process {rank} of {world_size} does not reach the others at {address} ({first_line(cause)}); "
            f"start the same command on all machines"
        ) from cause
    try:
        yield Peers(rank, world_size)
    finally:
        distributed.destroy_process_group()


def lost_peer(fault: RuntimeError) -> bool:
    """Whether a collective operation failed because another process has ended or does not answer."""
    return isinstance(fault, distributed.DistError) or bool(_LOST.search(str(fault)))


@contextmanager
def _telling_of_lost_peers() -> Iterator[None]:
    try:
        yield
    except RuntimeError as fault:
        if not lost_peer(fault):
            raise
        raise InputError(
            f"another process of this command has ended, or does not answer ({first_line(fault)}); start the "
            f"same command again: with a folder to write, what was answered is not asked again"
        ) from fault


def _environment() -> tuple[int, int, str] | None:
    """Rank, number of processes, and where they meet; ``None`` for a process that is alone."""
    if "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ["WORLD_SIZE"]) > 1:
        # By "env://" torch joins the store that torchrun itself has opened.
        return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), "env://"
    if int(os.environ.get("SLURM_NTASKS", 1)) > 1 and "SLURM_PROCID" in os.environ:
        from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

        if not SLURMEnvironment.detect():
            return None
        try:
            slurm = SLURMEnvironment(auto_requeue=False)
        except RuntimeError as cause:  # such as --ntasks without --ntasks-per-node
            raise InputError(str(cause)) from cause
        address = f"tcp://{slurm.main_address}:{slurm.main_port}"
        return slurm.global_rank(), slurm.world_size(), address
    return None
