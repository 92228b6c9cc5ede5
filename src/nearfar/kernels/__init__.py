"""Fast exact paths behind :mod:`nearfar.functional`; each has a plain reference beside it."""

from nearfar.kernels.choice import engine_for, streams
from nearfar.reference import reference_only

__all__ = ["engine_for", "reference_only", "streams"]
