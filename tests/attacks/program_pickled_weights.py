"""Tries to run a command by a pickled weight, for which torch's reader does not ask for tensors alone.

Stopped by the same look: archives that hold pickled tensors are refused.
"""

import pickle

import whole_files

SAYS = "it holds pickled tensors"


def change(name, content):
    if name.endswith("weights_config.json"):
        content = content.replace(b'"use_pickle": false', b'"use_pickle": true')
    if name.endswith("weights/weight_0"):
        content = pickle.dumps(whole_files.Command())
    return content


def attack(folder):
    path = folder / "net.pt2"
    path.write_bytes(whole_files.rezipped(change))
    return whole_files.predict(folder, path)
