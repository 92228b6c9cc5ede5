"""TrainerSpec: on what to train, and what is written meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

from nearfar.errors import InputError

__all__ = ["TrainerSpec", "check_tensorboard"]


@dataclass(frozen=True)
class TrainerSpec:
    """On what to train, and what is written meanwhile.

    Args:
        accelerator: ``auto``, ``cpu``, ``gpu``, …
        devices: how many devices of each machine, or ``auto``; one process each.
        num_nodes: how many machines.
        strategy: how several processes work together: ``ddp`` (``auto`` takes it too),
            ``ddp_find_unused_parameters_true`` for networks that do not always use all weights, or
            ``fsdp``, which shares the weights out and needs GPUs (not measured on a GPU).
        precision: ``32-true``, ``bf16-mixed``, … as ``lightning.Trainer`` has it.
        compile: run the network through ``torch.compile``.
        save_every: also save after every so many updates within an epoch, so that an interrupted
            run loses no more than that. Default: at the end of each epoch only.
        tensorboard: log for TensorBoard too, into ``tensorboard/`` (needs ``nearfar[logs]``).

    Raises:
        InputError: ``save_every`` below 1.
    """

    accelerator: str = "cpu"
    devices: int | str = 1
    num_nodes: int = 1
    strategy: str = "auto"
    precision: str = "32-true"
    compile: bool = False
    save_every: int | None = None
    tensorboard: bool = False

    def __post_init__(self) -> None:
        every = self.save_every
        if every is not None and (not isinstance(every, int) or every < 1):
            raise InputError(
                f"save_every must be at least 1 update, got {every}; leave it out to save at the end "
                f"of each epoch only"
            )


def check_tensorboard(spec: TrainerSpec) -> None:
    """Refuses to log for TensorBoard where it is missing; a net that was trained with it loads anywhere.

    Raises:
        InputError: TensorBoard is asked for and not installed.
    """
    if spec.tensorboard and find_spec("tensorboard") is None:
        raise InputError(
            "tensorboard=True needs TensorBoard, which is not installed: pip install 'nearfar[logs]'"
        )
