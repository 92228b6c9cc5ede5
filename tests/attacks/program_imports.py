"""Tries to import a module that the structure of a program's outputs names.

Stopped by the same look: structures that name modules are refused.
"""

import whole_files

SAYS = "names a module to import"


def change(name, content):
    if name.endswith("models/model.json"):
        content = content[:-1] + b', "x": "default_factory_module"}'
    return content


def attack(folder):
    path = folder / "net.pt2"
    path.write_bytes(whole_files.rezipped(change))
    return whole_files.predict(folder, path)
