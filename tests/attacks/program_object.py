"""Tries to run a command by an object among a program's constants, in a folder so that its own name is plain.

Stopped by the same look: archives that hold objects are refused.
"""

import json
import pickle

import whole_files

SAYS = "it holds the pickled object"


OBJECT = {
    "path_name": "opaque_obj_0/x",
    "is_param": False,
    "use_pickle": True,
    "tensor_meta": None,
}


def change(name, content):
    if name == "data/constants/model_constants_config.json":
        return json.dumps({"config": {"x": OBJECT}}).encode()
    return content


def attack(folder):
    path = folder / "net.pt2"
    path.write_bytes(
        whole_files.rezipped(
            change, [("data/constants/opaque_obj_0/x", pickle.dumps(whole_files.Command()))]
        )
    )
    return whole_files.predict(folder, path)
