"""Tries to read a file outside an ONNX file's folder, as where its tensors lie.

Stopped by a look at where tensors lie: in the file, or in files of plain names beside it.
"""

import onnx
import whole_files
from onnx.external_data_helper import set_external_data

SAYS = "keeps tensors in"


def attack(folder):
    model = onnx.load_from_string(whole_files.exported(".onnx"))
    tensor = model.graph.initializer[0]
    set_external_data(tensor, location="../elsewhere/secret")
    tensor.ClearField("raw_data")
    path = folder / "net.onnx"
    path.write_bytes(model.SerializeToString())
    return whole_files.predict(folder, path)
