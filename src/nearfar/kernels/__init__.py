"""Fast exact paths behind :mod:`nearfar.functional`, and the composition that defines each."""

from nearfar.kernels.dispatch import can_use_fast_path, engine_for
from nearfar.reference import reference_only

__all__ = ["can_use_fast_path", "engine_for", "reference_only"]
