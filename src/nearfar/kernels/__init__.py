"""Fast exact paths behind :mod:`nearfar.functional`; each has a plain reference beside it."""
