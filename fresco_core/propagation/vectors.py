"""Vector code that Numba's loops do not become by themselves.

Written as LLVM's own vector types, for whatever vector unit the CPU has: nothing here names one.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

_CHUNK = 16
"""int16 values of one vector: 32 bytes."""


def _first_byte(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.gep(data, [index])


def _sum(builder: Any, vector: Any, size: int) -> Any:
    """Of a vector's int32 elements; their number is a power of two."""
    i32 = ir.IntType(32)
    while size > 1:
        size //= 2
        low, high = (
            ir.Constant(ir.VectorType(i32, size), [ir.Constant(i32, k) for k in numbers])
            for numbers in (range(size), range(size, 2 * size))
        )
        nothing = ir.Constant(vector.type, None)
        vector = builder.add(
            builder.shuffle_vector(vector, nothing, low),
            builder.shuffle_vector(vector, nothing, high),
        )
    return builder.extract_element(vector, ir.Constant(i32, 0))


@intrinsic
def squares(typing_context, source, a, source_row, target, b, target_row, depth, rows, columns):
    """Sum of squared differences of two blocks of int16 pixels, int32.

    ``a`` and ``b``: indices of the first elements; ``source_row`` and ``target_row``: elements from
    one row to the next (all uint64). ``depth``, ``rows``, ``columns``: tuples whose lengths say how
    many values a pixel has (a multiple of eight) and how large the block is.
    """
    signature = types.int32(
        source, types.uint64, types.uint64, target, types.uint64, types.uint64,
        depth, rows, columns,
    )  # fmt: skip
    length, height = len(depth) * len(columns), len(rows)
    i32 = ir.IntType(32)

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        starts = []
        for array_type, array, index, row in (
            (source, *arguments[:3]),
            (target, *arguments[3:6]),
        ):
            at = []
            for _number in range(height):
                at.append(_first_byte(context, builder, array_type, array, index))
                index = builder.add(index, row)
            starts.append(at)
        sums: dict[int, list[Any]] = {}
        for row in range(height):
            for first in range(0, length, _CHUNK):
                size = min(_CHUNK, length - first)
                vector = ir.VectorType(ir.IntType(16), size)
                values = []
                for at in starts:
                    pointer = builder.gep(at[row], [ir.Constant(i32, first)])
                    pointer = builder.bitcast(pointer, vector.as_pointer())
                    load = builder.load(pointer)
                    load.align = 2
                    values.append(load)
                difference = builder.sub(*values)
                wide = builder.sext(difference, ir.VectorType(i32, size))
                square = builder.mul(wide, wide)
                halves = []
                # Even and odd elements added: the form that becomes one multiply-and-add.
                for offset in (0, 1):
                    order = ir.Constant(
                        ir.VectorType(i32, size // 2),
                        [ir.Constant(i32, k) for k in range(offset, size, 2)],
                    )
                    nothing = ir.Constant(square.type, None)
                    halves.append(builder.shuffle_vector(square, nothing, order))
                sums.setdefault(size, []).append(builder.add(*halves))
        total = ir.Constant(i32, 0)
        for size, terms in sums.items():
            while len(terms) > 1:  # pairwise, so that additions do not wait for one another
                terms = [
                    builder.add(*terms[k : k + 2]) if k + 1 < len(terms) else terms[k]
                    for k in range(0, len(terms), 2)
                ]
            total = builder.add(total, _sum(builder, terms[0], size // 2))
        return total

    return signature, generate


@intrinsic
def prefetch(typing_context, array, index):
    """Begin to read an element that is needed soon."""
    signature = types.void(array, types.uint64)

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        pointer = _first_byte(context, builder, array, *arguments)
        byte = ir.IntType(8).as_pointer()
        i32 = ir.IntType(32)
        function = builder.module.declare_intrinsic(
            "llvm.prefetch", [byte], ir.FunctionType(ir.VoidType(), [byte, i32, i32, i32])
        )
        flags = [ir.Constant(i32, value) for value in (0, 3, 1)]  # read, keep, data
        builder.call(function, [builder.bitcast(pointer, byte), *flags])
        return context.get_dummy_value()

    return signature, generate
