"""Programs of ``torch.export`` are looked through before torch reads them: torch's reader runs what it reads.

It unpickles tensors and objects, evaluates sizes as Python expressions, imports modules that tree structures
name, and calls operators by name, some of which read and write files. Programs that nearfar or
``torch.export.save`` writes of a network need none of that.
"""

from __future__ import annotations

import ast
import os
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nearfar.errors import InputError, first_line
from nearfar.records import parse_json, short_repr

__all__ = ["check_program", "tensors_only"]

#: Operators on tensors and numbers; of other libraries of operators some touch files.
_OPERATOR = re.compile(
    r"torch\.ops\.(aten|prims?|nearfar|torchvision|quantized|quantized_decomposed|higher_order)\.\w+(\.\w+)?"
    r"|torch\._?sym_\w+|math\.\w+"
    r"|_operator\.(add|sub|mul|neg|pos|floordiv|truediv|mod|pow|eq|ne|lt|le|gt|ge|and_|or_|not_|getitem|lshift|rshift)"
)
_TOUCHES_FILES = "torch.ops.aten.from_file"
#: Functions in the expressions of sizes, by which torch writes them.
_FUNCTIONS = frozenset(  # a list of them would take fifty lines
    """Symbol Integer Rational Float Add Mul Pow Max Min Mod Abs Eq Ne Equality Unequality StrictLessThan
    LessThan StrictGreaterThan GreaterThan And Or Not Piecewise ExprCondPair Identity floor ceiling sqrt
    FloorDiv CeilDiv CleanDiv ModularIndexing PythonMod Where IntTrueDiv FloatTrueDiv FloatPow PowByNatural
    CeilToInt FloorToInt TruncToInt TruncToFloat RoundToInt RoundDecimal ToFloat LShift RShift
    IsNonOverlappingAndDenseIndicator BitwiseFn_bitwise_and BitwiseFn_bitwise_or MaxFn MinFn""".split()  # noqa: SIM905
)
#: Strings in them: a size's name, or a number that is no whole one.
_STRING = re.compile(r"[A-Za-z]\w{0,40}|-?\d{1,40}(\.\d{0,40})?(e[+-]?\d{1,3})?")
_NAME = re.compile(r"[A-Za-z]\w{0,40}")
#: Files of a program that hold pickles of objects.
_OBJECTS = ("custom_obj", "opaque_obj")
#: Names of files of tensors.
_PAYLOAD = re.compile(r"(weight|tensor)_\d+")
_MOST_VALUES = 100_000_000


def check_program(path: Path) -> None:
    """Refuses a program that would run more than a network when it is read or asked.

    Args:
        path: the file.

    Raises:
        InputError: no archive as ``torch.export.save`` writes it, or one that holds pickled objects,
            expressions that are no sizes, or operators that are not on tensors.
    """
    mend = "export it again, from a network of tensors alone"
    length = path.stat().st_size
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if info.compress_type != zipfile.ZIP_STORED or info.file_size > length:
                    raise InputError(
                        f"it holds {short_repr(info.filename)} compressed, or not whole"
                    )
                name = info.filename.lower()
                parts = name.split("/")
                if any(part.startswith(_OBJECTS) for part in parts):
                    raise InputError(f"it holds the pickled object {short_repr(info.filename)}")
                # Below the archive's own folder, which may have any name, lies what others put beside.
                if name.endswith(".json") and parts[1:2] != ["extra"]:
                    _check_text(archive.read(info), info.filename, mend)
    except InputError as cause:
        raise InputError(f"{path} is not read: {cause}, which may run code; {mend}") from cause
    except Exception as cause:  # whatever the damage makes the reader of archives trip over
        raise InputError(
            f"{path} cannot be read as a program of torch.export: {first_line(cause)}; export it again"
        ) from cause


def _check_text(text: bytes, name: str, mend: str) -> None:
    # Within a text within the JSON: a tree structure's.
    if b"default_factory_module" in text:
        raise InputError("it names a module to import")
    for record in _mappings(parse_json(text, name, mend, finite=False, most=_MOST_VALUES)):
        # Under a name that begins otherwise torch's reader unpickles an object.
        payload = record.get("path_name", "weight_0")
        if not isinstance(payload, str) or not _PAYLOAD.fullmatch(payload):
            raise InputError(f"it holds the pickled object {short_repr(payload)}")
        if record.get("use_pickle"):
            raise InputError("it holds pickled tensors")
        target, expression = record.get("target"), record.get("expr_str")
        if isinstance(target, str) and ("inputs" in record or "outputs" in record):
            _check_operator(target)
        if expression is not None:
            _check_expression(expression)


def _mappings(data: Any) -> Iterator[Mapping[str, Any]]:
    stack = [data]
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            yield value
            stack += value.values()
        elif isinstance(value, list):
            stack += value


def _check_operator(target: str) -> None:
    if not _OPERATOR.fullmatch(target) or target.startswith(_TOUCHES_FILES):
        raise InputError(f"it calls {short_repr(target)}")


def _check_expression(text: Any) -> None:
    """Lets through numbers, names of sizes and functions of them."""
    fault = InputError(f"it has the size {short_repr(text)}")
    if not isinstance(text, str):
        raise fault
    try:
        nodes = list(ast.walk(ast.parse(text, mode="eval")))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as cause:
        raise fault from cause
    # Their names are checked as names.
    functions = {id(node.func) for node in nodes if isinstance(node, ast.Call)}
    for node in nodes:
        if isinstance(node, ast.Name):
            allowed = (
                node.id in _FUNCTIONS if id(node) in functions else bool(_NAME.fullmatch(node.id))
            )
        elif isinstance(node, ast.Constant):
            allowed = not isinstance(node.value, str) or bool(_STRING.fullmatch(node.value))
            allowed = allowed and isinstance(node.value, (bool, int, float, str))
        else:
            allowed = isinstance(node, _SYNTAX) and (
                not isinstance(node, ast.Call) or isinstance(node.func, ast.Name)
            )
        if not allowed:
            raise fault


_SYNTAX = (
    *(
        ast.Expression,
        ast.Call,
        ast.keyword,
        ast.Load,
        ast.BinOp,
        ast.UnaryOp,
        ast.BoolOp,
        ast.Compare,
    ),
    *(ast.Tuple, ast.operator, ast.unaryop, ast.boolop, ast.cmpop),
)


@contextmanager
def tensors_only() -> Iterator[None]:
    """Within it, torch unpickles tensors alone, whatever its own readers ask for."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before
