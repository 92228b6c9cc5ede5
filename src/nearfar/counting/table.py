"""What a count holds: rows and totals, and how they are written."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, Literal

from nearfar.records import as_csv

__all__ = ["SUMS", "Count", "Kind", "Reach", "Row"]

Kind = Literal["convolution", "dense", "pool", "scale layer", "product", "other"]
Reach = Literal["pixels", "whole image", "not known", "none"]

#: The figures of a row that make up a total.
SUMS = ("units", "connections", "weights", "parameters", "multiplications", "memory")


@dataclass(frozen=True)
class Row:
    """One layer of a network, for one image.

    Attributes:
        name: the module's path in the network; an operator that a module with parts calls itself is
            ``path/operator``, and ``#2`` marks a second one.
        type: the module's class, or the operator.
        kind: ``convolution``, ``dense``, ``pool``, ``scale layer`` (nearfar's own), ``product`` (of two
            maps, as in attention: multiplications alone), or ``other`` (norms and whatever else owns
            parameters: parameters and memory alone).
        output: shape of what it puts out, without the batch; of its first call.
        units: numbers it puts out. Over all calls, as are connections, multiplications and memory.
        connections: what its units read, counted one by one.
        weights: what it multiplies with, shared ones in the first row alone.
        parameters: what it learns, shared ones in the first row alone.
        multiplications: of convolutions, dense layers and products of maps, by definition.
        memory: bytes of its output.
        field: pixels of the image that one unit sees, ``(height, width)``, borders disregarded; where
            calls differ, of the one that sees most. ``None`` unless ``reach`` is ``pixels``.
        reach: what ``field`` stands for: ``pixels``; ``whole image`` after a global pool, a dense layer
            over the map or attention; ``not known`` where an operator cannot be followed; ``none`` where
            nothing is put out that depends on the image.
        covers: whether some unit sees all of the image.
        calls: how often it is applied; 0 for what the network holds and does not use.
        shared_with: the row in which its weights are counted; ``None`` if here.
    """

    name: str
    type: str
    kind: Kind
    output: tuple[int, ...]
    units: int
    connections: int
    weights: int
    parameters: int
    multiplications: int
    memory: int
    field: tuple[int, int] | None
    reach: Reach
    covers: bool
    calls: int
    shared_with: str | None


def _total(name: str, description: str) -> property:
    return property(lambda table: sum(getattr(row, name) for row in table.rows), doc=description)


@dataclass(frozen=True)
class Count:
    """A network counted layer by layer.

    Attributes:
        model: the network's name or class.
        input_size: ``(channels, height, width)`` of the image.
        biases: whether biases count as weights and connections.
        rows: the layers, in the order in which they first act.
    """

    model: str
    input_size: tuple[int, int, int]
    biases: bool
    rows: tuple[Row, ...]

    units = _total("units", "Numbers that all layers put out; the image itself is not counted.")
    connections = _total("connections", "Connections of all units.")
    weights = _total("weights", "Numbers that layers multiply with, shared ones once.")
    parameters = _total("parameters", "Numbers to learn, biases and norms too, shared ones once.")
    multiplications = _total("multiplications", "Multiplications for one image, by definition.")
    memory = _total("memory", "Bytes of all rows' outputs for one image.")

    def as_dict(self) -> dict[str, Any]:
        """As plain data: ``model``, ``input_size``, ``biases``, ``rows``, ``total``."""
        rows = [dataclasses.asdict(row) for row in self.rows]
        for row in rows:
            row |= {"output": [*row["output"]], "field": row["field"] and [*row["field"]]}
        return {
            "schema": "nearfar.count/1",
            "model": self.model,
            "input_size": list(self.input_size),
            "biases": self.biases,
            "rows": rows,
            "total": {name: getattr(self, name) for name in SUMS},
        }

    def as_json(self) -> str:
        """:meth:`as_dict` as JSON."""
        return json.dumps(self.as_dict(), indent=2, ensure_ascii=False) + "\n"

    def as_csv(self) -> str:
        """A line a row and one for the total, under a line of names.

        Shapes are written ``6×28×28`` and fields in two columns, empty where there is none.
        """
        columns = " ".join(column.name for column in dataclasses.fields(Row))
        names = columns.replace(" field ", " field_height field_width ").split()
        lines = self.as_dict()["rows"]
        for line in lines:
            line["field_height"], line["field_width"] = line.pop("field") or ("", "")
            line["output"] = "×".join(map(str, line["output"]))
            line["covers"] = str(line["covers"]).lower()
        total = {"name": "total", **{name: getattr(self, name) for name in SUMS}}
        return as_csv(names, [*lines, total])
