"""Tries to read another file by an operator, `aten::from_file`, in place of one on tensors.

Stopped by the same look: operators are on tensors and numbers.
"""

import io
import zipfile

import whole_files

SAYS = "it calls"


def attack(folder):
    path = folder / "net.pt2"
    with (
        zipfile.ZipFile(io.BytesIO(whole_files.exported(".pt2"))) as source,
        zipfile.ZipFile(path, "w") as target,
    ):
        for info in source.infolist():
            content = source.read(info)
            if info.filename.endswith("models/model.json"):
                content = content.replace(
                    b"torch.ops.aten.relu.default", b"torch.ops.aten.from_file.default"
                )
            target.writestr(info.filename, content)

    picture = folder / "photo.png"
    picture.write_bytes(whole_files.png(whole_files.photo()))
    return ["predict", path, picture]
