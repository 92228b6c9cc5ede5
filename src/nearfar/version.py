"""The version, in one place; the build reads it from here."""

__version__ = "0.2.0"


def versions() -> dict[str, str]:
    """Of nearfar and torch, as plain strings: a checkpoint of tensors and plain data can hold them."""
    import torch  # heavy, and not needed to say nearfar's own

    return {"nearfar": __version__, "torch": str(torch.__version__)}
