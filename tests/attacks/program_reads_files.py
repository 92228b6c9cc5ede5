"""Tries to read another file by an operator, `aten::from_file`, in place of one on tensors.

Stopped by the same look: operators are on tensors and numbers.
"""

import whole_files

SAYS = "it calls"


def change(name, content):
    if name.endswith("models/model.json"):
        content = content.replace(
            b"torch.ops.aten.relu.default", b"torch.ops.aten.from_file.default"
        )
    return content


def attack(folder):
    path = folder / "net.pt2"
    path.write_bytes(whole_files.rezipped(change))
    return whole_files.predict(folder, path)
