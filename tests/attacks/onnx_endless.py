"""Tries to keep the machine busy for ever: an ONNX file with a loop of 10^12 turns.

Stopped by a trial in a process of its own, which is ended when its time is over.
"""

import onnx
import whole_files
from onnx import TensorProto, helper

SAYS = "was not opened and asked by onnxruntime within"


def attack(folder):
    def value(name, kind, *shape):
        return helper.make_tensor_value_info(name, kind, shape)

    number, truth = TensorProto.FLOAT, TensorProto.BOOL
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Neg", ["a"], ["b"])],
        "body",
        [value("i", TensorProto.INT64), value("go", truth), value("a", number, 1, 3)],
        [value("on", truth), value("b", number, 1, 3)],
    )
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["means"]),
        helper.make_node("Flatten", ["means"], ["features"]),
        helper.make_node("Loop", ["turns", "always", "features"], ["y"], body=body),
    ]
    tensors = [
        helper.make_tensor("turns", TensorProto.INT64, [], [10**12]),
        helper.make_tensor("always", truth, [], [True]),
    ]
    inputs, outputs = [value("x", number, 1, 3, 8, 8)], [value("y", number, 1, 3)]
    graph = helper.make_graph(nodes, "endless", inputs, outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "net.onnx")
    return whole_files.predict(folder, folder / "net.onnx")
