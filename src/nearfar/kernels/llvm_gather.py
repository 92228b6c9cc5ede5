"""Vector loops for :mod:`nearfar.kernels.numba_engine`, written as LLVM instructions and compiled by numba.

Each is one weighted sum of rows: for every element c of a row,

    Σ_t  coefficient[t] · source[index[t] + c]

with the sums of a block of elements in registers while the terms go by. A loop over elements with the
terms inside, which is all that can be said in Python, makes the compiler store and load each partial sum.
Rows are passed by address, so that any view of any tensor can be one.

What it brings over the same loops in Python, compiled by numba and unrolled by eight terms: an SI-layer's
forward and backward pass take 1.06 to 1.9 times as long with those, 1.4 times as a mean over the shapes of
``benchmarks.operators`` (one thread, torch 2.14, numba 0.68).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

__all__ = ["gather", "gather_max", "gather_won", "integer"]

#: Elements a vector, and vectors a block: 64 floats, four registers of the widest kind.
_LANES, _VECTORS = 16, 4

_BYTE, _INT = ir.IntType(8), ir.IntType(64)


def _integer(value: int) -> Any:
    return ir.Constant(_INT, value)


class _Rows:
    """Code for a row loop: a block at a time, then a vector at a time, then single elements."""

    def __init__(self, builder: Any, element: Any) -> None:
        self.builder, self.element = builder, element
        self.bytes = 4 if isinstance(element, ir.FloatType) else 8

    def at(self, address: Any, index: Any, element: Any = None) -> Any:
        """Pointer to one element of the row at an address."""
        element = element or self.element
        pointer = self.builder.inttoptr(address, element.as_pointer())
        return self.builder.gep(pointer, [index])

    def load(self, pointer: Any, lanes: int) -> Any:
        element = pointer.type.pointee
        wide = self.builder.bitcast(pointer, ir.VectorType(element, lanes).as_pointer())
        return self.builder.load(wide, align=1 if element is _BYTE else self.bytes)

    def store(self, value: Any, pointer: Any) -> None:
        wide = self.builder.bitcast(pointer, value.type.as_pointer())
        self.builder.store(value, wide, align=1 if value.type.element is _BYTE else self.bytes)

    def broadcast(self, value: Any, lanes: int) -> Any:
        """One value in every lane."""
        vector = ir.VectorType(value.type, lanes)
        undefined = ir.Constant(vector, ir.Undefined)
        first = self.builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
        return self.builder.shuffle_vector(first, undefined, zeros)

    def multiply_add(self, a: Any, b: Any, c: Any) -> Any:
        name = f"llvm.fmuladd.v{a.type.count}f{8 * self.bytes}"
        kind = ir.FunctionType(a.type, [a.type] * 3)
        return self.builder.call(
            cgutils.get_or_insert_function(self.builder.module, kind, name), [a, b, c]
        )

    def blocks(self, length: Any, body: Callable[[Any, int, int], None]) -> None:
        """``body(c, lanes, vectors)`` for consecutive blocks of a row."""
        builder = self.builder
        counter = cgutils.alloca_once_value(builder, _integer(0))
        for lanes, vectors in ((_LANES, _VECTORS), (_LANES, 1), (1, 1)):
            head, inside, end = (builder.append_basic_block(n) for n in ("head", "block", "end"))
            builder.branch(head)
            builder.position_at_end(head)
            c = builder.load(counter)
            after = builder.add(c, _integer(lanes * vectors))
            builder.cbranch(builder.icmp_signed("<=", after, length), inside, end)
            builder.position_at_end(inside)
            body(c, lanes, vectors)
            builder.store(after, counter)
            builder.branch(head)
            builder.position_at_end(end)

    def sums(
        self,
        first: Any,
        last: Any,
        lanes: int,
        vectors: int,
        term: Callable[[Any, int], tuple[Any, Any]],
    ) -> list[Any]:
        """The sums over terms of coefficient times vector; ``term(t, i)`` gives both."""
        builder = self.builder
        before = builder.block
        head, inside, end = (builder.append_basic_block(n) for n in ("terms", "term", "done"))
        builder.branch(head)
        builder.position_at_end(head)
        t = builder.phi(_INT)
        vector = ir.VectorType(self.element, lanes)
        totals = [builder.phi(vector) for _ in range(vectors)]
        t.add_incoming(first, before)
        for total in totals:
            total.add_incoming(ir.Constant(vector, [0.0] * lanes), before)
        builder.cbranch(builder.icmp_signed("<", t, last), inside, end)
        builder.position_at_end(inside)
        added = [self.multiply_add(*term(t, i), totals[i]) for i in range(vectors)]
        t.add_incoming(builder.add(t, _integer(1)), builder.block)
        for total, new in zip(totals, added, strict=True):
            total.add_incoming(new, builder.block)
        builder.branch(head)
        builder.position_at_end(end)
        return totals

    def terms(
        self, source: Any, index: Any, coefficient: Any, c: Any, lanes: int
    ) -> Callable[[Any, int], tuple[Any, Any]]:
        """The usual terms: coefficient[t] and source[index[t] + c + i · lanes]."""
        builder = self.builder

        def term(t: Any, i: int) -> tuple[Any, Any]:
            start = builder.add(builder.load(self.at(index, t, _INT)), c)
            position = builder.add(start, _integer(i * lanes))
            factor = self.broadcast(builder.load(self.at(coefficient, t)), lanes)
            return factor, self.load(self.at(source, position), lanes)

        return term


def _address_arguments(zero: Any, count: int) -> Any:
    return types.void(zero, *([types.int64] * count))


@intrinsic  # type: ignore[untyped-decorator]
def integer(typing: Any, address: Any, index: Any) -> Any:
    """The integer ``index`` steps behind an address."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], _INT.as_pointer())
        return builder.load(builder.gep(pointer, [arguments[1]]))

    return types.int64(types.int64, types.int64), code


@intrinsic  # type: ignore[untyped-decorator]
def gather(
    typing: Any,
    zero: Any,
    out: Any,
    source: Any,
    index: Any,
    coefficient: Any,
    first: Any,
    last: Any,
    length: Any,
) -> Any:
    """``out[c] = Σ_t coefficient[t] · source[index[t] + c]`` for terms ``first`` to ``last``.

    ``zero`` has the type of the elements; the others are addresses and counts.
    """

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        rows = _Rows(builder, context.get_value_type(signature.args[0]))
        _, out, source, index, coefficient, first, last, length = arguments

        def body(c: Any, lanes: int, vectors: int) -> None:
            term = rows.terms(source, index, coefficient, c, lanes)
            for i, total in enumerate(rows.sums(first, last, lanes, vectors, term)):
                rows.store(total, rows.at(out, builder.add(c, _integer(i * lanes))))

        rows.blocks(length, body)
        return context.get_dummy_value()

    return _address_arguments(zero, 7), code


@intrinsic  # type: ignore[untyped-decorator]
def gather_max(
    typing: Any,
    zero: Any,
    best: Any,
    won: Any,
    source: Any,
    index: Any,
    coefficient: Any,
    first: Any,
    last: Any,
    length: Any,
    rank: Any,
) -> Any:
    """The same sum; where it is larger than ``best[c]``, or NaN, it replaces that, and ``rank`` ``won[c]``.

    With 0 for the address of ``won``, ranks are not stored.
    """

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        rows = _Rows(builder, context.get_value_type(signature.args[0]))
        _, best, won, source, index, coefficient, first, last, length, rank = arguments
        rank = builder.trunc(rank, _BYTE)

        def body(c: Any, lanes: int, vectors: int) -> None:
            term = rows.terms(source, index, coefficient, c, lanes)
            for i, total in enumerate(rows.sums(first, last, lanes, vectors, term)):
                position = builder.add(c, _integer(i * lanes))
                largest, winner = rows.at(best, position), rows.at(won, position, _BYTE)
                old = rows.load(largest, lanes)
                better = builder.or_(
                    builder.fcmp_ordered(">", total, old),
                    builder.fcmp_unordered("uno", total, total),
                )
                rows.store(builder.select(better, total, old), largest)
                with builder.if_then(builder.icmp_unsigned("!=", won, _integer(0))):
                    ranks = rows.broadcast(rank, lanes)
                    ranks = builder.select(better, ranks, rows.load(winner, lanes))
                    rows.store(ranks, winner)

        rows.blocks(length, body)
        return context.get_dummy_value()

    return _address_arguments(zero, 9), code


@intrinsic  # type: ignore[untyped-decorator]
def gather_won(
    typing: Any,
    zero: Any,
    out: Any,
    source: Any,
    won: Any,
    index: Any,
    coefficient: Any,
    first: Any,
    last: Any,
    length: Any,
    rank: Any,
) -> Any:
    """The same sum over those elements of ``source`` where ``won``, of the same strides, is this rank."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        rows = _Rows(builder, context.get_value_type(signature.args[0]))
        _, out, source, won, index, coefficient, first, last, length, rank = arguments
        rank = builder.trunc(rank, _BYTE)

        def body(c: Any, lanes: int, vectors: int) -> None:
            usual = rows.terms(source, index, coefficient, c, lanes)

            def term(t: Any, i: int) -> tuple[Any, Any]:
                factor, values = usual(t, i)
                start = builder.add(builder.load(rows.at(index, t, _INT)), c)
                winner = rows.at(won, builder.add(start, _integer(i * lanes)), _BYTE)
                ranks = rows.broadcast(rank, lanes)
                is_own = builder.icmp_unsigned("==", rows.load(winner, lanes), ranks)
                zeros = ir.Constant(values.type, [0.0] * lanes)
                return factor, builder.select(is_own, values, zeros)

            for i, total in enumerate(rows.sums(first, last, lanes, vectors, term)):
                rows.store(total, rows.at(out, builder.add(c, _integer(i * lanes))))

        rows.blocks(length, body)
        return context.get_dummy_value()

    return _address_arguments(zero, 9), code
