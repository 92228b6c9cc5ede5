"""Fast exact paths behind :mod:`nearfar.functional`; each has a plain reference beside it."""

from nearfar.kernels.choice import reference_only, streams

__all__ = ["reference_only", "streams"]
