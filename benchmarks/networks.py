"""The papers' networks, counted: ``python -m benchmarks.networks`` (half a minute).

Writes results/networks.json, and prints the table of docs/networks.md.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

import nearfar
from nearfar.atomic import write_atomically
from nearfar.provenance import today

RESULTS = Path(__file__).parent.parent / "results"
TABLE_1 = "Takahashi, Table 1"
TABLE_2 = "Takahashi, Table 2"
TABLE_3 = "Takahashi, Table 3"
#: Name, options, the paper's parameters and multiplications of convolutions (both as printed), where.
NETWORKS: list[tuple[str, dict[str, Any], str, str, str]] = [
    ("lenet1989", {}, "9,760", "", "lecture"),
    ("lenet5", {}, "", "", ""),
    ("lenet5", {"as_printed": True}, "60,000 without the output", "", "lecture"),
    ("mlp_mnist", {}, "", "", ""),
    ("alexnet_two_tower", {}, "60 M", "", "lecture, Akbari §I"),
    ("si_alexnet_two_tower", {}, "60 M", "", "Akbari §I"),
    ("zfnet", {}, "", "", ""),
    ("zfnet_wide", {}, "", "", ""),
    ("googlenet", {}, "5 M; 2 M", "", "lecture notes §2.4; lecture"),
    ("vgg16", {}, "", "", ""),
    ("cnn_mnist_scale", {}, "", "", ""),
    ("si_mnist_scale", {}, "", "", ""),
    ("hierarchical_mnist_scale", {}, "“many more”", "", "Akbari §IV"),
    ("cnn_tiny", {}, "", "", ""),
    ("pyramid_tiny", {}, "1/4, 1/3, 1/2 a layer", "", "scale pyramid §5.5"),
    ("scale_tiny", {}, "", "", ""),
    ("resnet20_cifar", {}, "", "", ""),
    ("pyramid_resnet20_cifar", {}, "", "", ""),
    ("resnet110_cifar", {}, "1.73 M", "252 M", TABLE_2),
    ("resnet116_cifar", {}, "1.82 M", "", TABLE_2),
    ("resnet122_cifar", {}, "1.92 M", "", TABLE_2),
    ("ms_resnet110_cifar", {}, "2.23 M", "", TABLE_2),
    ("wsms_resnet110_cifar", {"integration": "none"}, "1.73 M", "", TABLE_2),
    ("wsms_resnet110_cifar", {"integration": "conv3x3"}, "1.86 M", "", TABLE_2),
    ("wsms_resnet110_cifar", {"integration": "conv1x1"}, "1.75 M", "301 M", TABLE_2),
    ("densenet100_k24_cifar", {}, "27.2 M", "6,889 M", TABLE_1),
    ("densenet100_k26_cifar", {}, "31.9 M", "", TABLE_1),
    ("ms_densenet100_k24_cifar", {}, "41.3 M", "", TABLE_1),
    ("wsms_densenet100_k24_cifar", {"integration": "none"}, "27.4 M", "", TABLE_1),
    ("wsms_densenet100_k24_cifar", {"integration": "conv3x3"}, "32.7 M", "", TABLE_1),
    ("wsms_densenet100_k24_cifar", {"integration": "conv1x1"}, "28.0 M", "8,454 M", TABLE_1),
    ("resnet50", {}, "25.6 M", "", TABLE_3),
    ("wsms_resnet50", {}, "32.9 M", "", TABLE_3),
    ("resnet101", {}, "44.5 M", "", TABLE_3),
    ("wsms_resnet101", {}, "52.0 M", "", TABLE_3),
    ("resnet152", {}, "60.2 M", "", TABLE_3),
    ("wsms_resnet152", {}, "67.7 M", "", TABLE_3),
]


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [
        "| network | image | units | parameters | the paper's | multiplications | the paper's | source |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for row in rows:
        options = ", ".join(f"{k}={v}" for k, v in row["options"].items())
        name = f"`{row['name']}`" + (f" ({options})" if options else "")
        size = "×".join(str(n) for n in row["image"])
        lines.append(
            f"| {name} | {size} | {row['units']:,} | {row['parameters']:,} | {row['paper_parameters']} | "
            f"{_millions(row['multiplications'])} | {row['paper_multiplications']} | {row['source']} |"
        )
    return "\n".join(lines) + "\n"


def _millions(n: int) -> str:
    return f"{n / 1e6:,.1f} M" if n >= 1e5 else f"{n:,}"


def main() -> None:
    """Counts every network and writes the figures."""
    rows = []
    for name, options, parameters, multiplications, source in NETWORKS:
        with torch.device("meta"):
            model = nearfar.create_model(name, **options)
        image = tuple(model.pretrained_cfg["input_size"])
        counted = nearfar.count(model, image)
        convolutions = [r.multiplications for r in counted.rows if r.kind != "dense"]
        rows.append(
            {
                "name": name,
                "options": options,
                "image": image,
                "units": counted.units,
                "parameters": counted.parameters,
                "paper_parameters": parameters,
                "multiplications": sum(convolutions),
                "paper_multiplications": multiplications,
                "source": source,
            }
        )
    record = {
        "schema": "nearfar.networks/1",
        "command": "python -m benchmarks.networks",
        "date": today(),
        "rows": rows,
    }
    write_atomically(RESULTS / "networks.json", json.dumps(record, indent=1) + "\n")
    print(table(rows), end="")


if __name__ == "__main__":
    main()
