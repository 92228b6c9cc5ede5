"""Where images come from: a source a file, each registered under the names that commands know."""

# Imported for their registrations, in the order in which list_sources() names them.
from nearfar.data.sources import mnist  # noqa: F401, I001
from nearfar.data.sources import cifar  # noqa: F401
from nearfar.data.sources import tiny_imagenet  # noqa: F401
from nearfar.data.sources import mnist_scale  # noqa: F401
from nearfar.data.sources import mnist_large_scale  # noqa: F401
from nearfar.data.sources import stir  # noqa: F401
from nearfar.data.sources import samples  # noqa: F401
from nearfar.data.sources import folder  # noqa: F401
from nearfar.data.sources import tars  # noqa: F401
from nearfar.data.sources import hugging_face  # noqa: F401
from nearfar.data.sources.registry import (
    has_test_part,
    is_own,
    list_sources,
    load_source,
    register_index,
    register_source,
)

__all__ = [
    "has_test_part",
    "is_own",
    "list_sources",
    "load_source",
    "register_index",
    "register_source",
]
