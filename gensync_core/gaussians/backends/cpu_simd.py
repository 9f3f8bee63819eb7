"""Explicit vectors for numba kernels: 8 or 16 float32, with the operators that the tile loops need.

numba leaves vectorising to LLVM, which loses most of the speed in short loops (run-time alias checks, scalar remainders,
masked stores). Here a kernel says what it wants: `F32x8` and `F32x16` values are LLVM vectors `<8 x float>` and
`<16 x float>`. Where registers are narrower LLVM takes several: two AVX registers for sixteen floats, which also lets the
processor work on two chains of dependent operations at once. The code is the same on any machine.

For `vector_kernel`s only: fast maths would take the rounding in `exp2` for a no-op. Inside kernels: `v + w`, `v - w`,
`v * w`, `v / w`, `-v` with vectors of one width or a vector and an np.float32; `v < w`, `v > w`, `v >= w`, `v <= w` give
masks, `m & n` and `m | n` join them; the functions below do the rest. Products may be fused with sums (FMA).
"""

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, lower_builtin, models, register_model, type_callable

from gensync_core.gaussians.backends.cpu_runtime import inlined

_FLOAT, _INT, _BIT = ir.FloatType(), ir.IntType(32), ir.IntType(1)
_FUSE = ("contract",)


def _in_kernels(function: Callable[..., Any]) -> Any:
    """Let kernels call what `function` emits; they do not pass its first argument, which type checkers cannot know."""
    return intrinsic(function)


class _Vector(types.Type):
    """`lanes` float32."""

    def __init__(self, lanes: int) -> None:
        super().__init__(name=f"F32x{lanes}")
        self.lanes = lanes


class _Mask(types.Type):
    """`lanes` truth values."""

    def __init__(self, lanes: int) -> None:
        super().__init__(name=f"Mask{lanes}")
        self.lanes = lanes


F32x8, F32x16 = _Vector(8), _Vector(16)
_MASKS = {8: _Mask(8), 16: _Mask(16)}


@register_model(_Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, numba_type: Any) -> None:
        super().__init__(manager, numba_type, ir.VectorType(_FLOAT, numba_type.lanes))


@register_model(_Mask)
class _MaskModel(models.PrimitiveModel):
    def __init__(self, manager: Any, numba_type: Any) -> None:
        super().__init__(manager, numba_type, ir.VectorType(_BIT, numba_type.lanes))


def _constant(element: Any, values: list[Any]) -> Any:
    return ir.Constant(ir.VectorType(element, len(values)), values)


def _shuffle(builder: Any, left: Any, right: Any, lanes: list[int]) -> Any:
    return builder.shuffle_vector(left, right, _constant(_INT, lanes))


def _broadcast(builder: Any, scalar: Any, lanes: int) -> Any:
    undefined = ir.Constant(ir.VectorType(_FLOAT, lanes), ir.Undefined)
    return _shuffle(builder, builder.insert_element(undefined, scalar, ir.Constant(_INT, 0)), undefined, [0] * lanes)


def _common_vector(*kinds: Any) -> Any:
    """The vector type of operands that are all of one vector type or float32, at least one a vector; else None."""
    vectors = {kind for kind in kinds if isinstance(kind, _Vector)}
    fits = len(vectors) == 1 and all(kind in vectors or kind == types.float32 for kind in kinds)
    return vectors.pop() if fits else None


def _as_vectors(builder: Any, kinds: Any, values: Any, lanes: int) -> list[Any]:
    """float32 operands as vectors; vectors as they are."""
    return [
        value if isinstance(kind, _Vector) else _broadcast(builder, value, lanes)
        for kind, value in zip(kinds, values, strict=True)
    ]


def _define_operator(symbol: Callable[..., Any], emit: Callable[[Any, Any, Any], Any], *, compares: bool = False) -> None:
    """Make `symbol` work on two vectors of one width, or on a vector and a float32 on either side."""

    @type_callable(symbol)
    def _(context):  # pyright: ignore[reportUnusedFunction]
        def typer(left, right):
            vector = _common_vector(left, right)
            return vector if vector is None or not compares else _MASKS[vector.lanes]

        return typer

    def lower(context, builder, signature, arguments):
        lanes = signature.return_type.lanes
        return emit(builder, *_as_vectors(builder, signature.args, arguments, lanes))

    for sides in ((_Vector, _Vector), (_Vector, types.float32), (types.float32, _Vector)):
        lower_builtin(symbol, *sides)(lower)


_define_operator(operator.add, lambda builder, a, b: builder.fadd(a, b, flags=_FUSE))
_define_operator(operator.sub, lambda builder, a, b: builder.fsub(a, b, flags=_FUSE))
_define_operator(operator.mul, lambda builder, a, b: builder.fmul(a, b, flags=_FUSE))
_define_operator(operator.truediv, lambda builder, a, b: builder.fdiv(a, b, flags=_FUSE))
_define_operator(operator.lt, lambda builder, a, b: builder.fcmp_ordered("<", a, b), compares=True)
_define_operator(operator.gt, lambda builder, a, b: builder.fcmp_ordered(">", a, b), compares=True)
_define_operator(operator.ge, lambda builder, a, b: builder.fcmp_ordered(">=", a, b), compares=True)
_define_operator(operator.le, lambda builder, a, b: builder.fcmp_ordered("<=", a, b), compares=True)


@type_callable(operator.neg)
def _type_negation(context):  # pyright: ignore[reportUnusedFunction]
    return lambda value: value if isinstance(value, _Vector) else None


@lower_builtin(operator.neg, _Vector)
def _lower_negation(context, builder, signature, arguments):  # pyright: ignore[reportUnusedFunction]
    return builder.fneg(arguments[0])


def _define_mask_operator(symbol: Callable[..., Any], emit: Callable[[Any, Any, Any], Any]) -> None:
    @type_callable(symbol)
    def _(context):  # pyright: ignore[reportUnusedFunction]
        return lambda left, right: left if isinstance(left, _Mask) and left == right else None

    lower_builtin(symbol, _Mask, _Mask)(lambda context, builder, signature, arguments: emit(builder, *arguments))


_define_mask_operator(operator.and_, lambda builder, a, b: builder.and_(a, b))
_define_mask_operator(operator.or_, lambda builder, a, b: builder.or_(a, b))


def _is_flat_access(array: Any, index: Any) -> bool:
    contiguous = isinstance(array, types.Array) and array.dtype == types.float32 and array.layout == "C"
    return contiguous and isinstance(index, types.Integer)


def _address(context: Any, builder: Any, array_type: Any, array: Any, index: Any, vector_type: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), vector_type.as_pointer())


def _loader(vector: _Vector) -> Callable[..., Any]:
    def load(typing_context, array, index):
        if not _is_flat_access(array, index):
            return None

        def emit(context, builder, signature, arguments):
            array, position = arguments
            address = _address(context, builder, signature.args[0], array, position, context.get_value_type(vector))
            return builder.load(address, align=4)

        return vector(array, index), emit

    return _in_kernels(load)


load8, load16 = _loader(F32x8), _loader(F32x16)
"""Eight or sixteen floats of a C-contiguous float32 array from a flat index on; no bounds check, no negative indices."""


@_in_kernels
def store(typing_context, array, index, value):
    """Write a vector into a C-contiguous float32 array from a flat index on; no bounds check, no negative indices."""
    if not (_is_flat_access(array, index) and isinstance(value, _Vector)):
        return None

    def emit(context, builder, signature, arguments):
        target, position, vector = arguments
        builder.store(vector, _address(context, builder, signature.args[0], target, position, vector.type), align=4)
        return context.get_dummy_value()

    return types.void(array, index, value), emit


def _constant_vector(vector: _Vector, values: list[float]) -> Callable[..., Any]:
    def constant(typing_context):
        return vector(), lambda context, builder, signature, arguments: _constant(_FLOAT, values)

    return _in_kernels(constant)


zeros8 = _constant_vector(F32x8, [0.0] * 8)
ramp8 = _constant_vector(F32x8, [float(lane) for lane in range(8)])
"""0, 1, ... 7."""
columns16 = _constant_vector(F32x16, [float(lane) for lane in range(8)] * 2)
"""0, 1, ... 7, 0, 1, ... 7: the columns of two rows of eight."""
rows16 = _constant_vector(F32x16, [0.0] * 8 + [1.0] * 8)
"""Eight times 0, eight times 1: the rows of two rows of eight."""


@_in_kernels
def select(typing_context, mask, when_true, when_false):
    """Lane by lane one of two; either may be a float32, not both."""
    vector = _common_vector(when_true, when_false)
    if not isinstance(mask, _Mask) or vector is None or vector.lanes != mask.lanes:
        return None

    def emit(context, builder, signature, arguments):
        return builder.select(arguments[0], *_as_vectors(builder, signature.args[1:], arguments[1:], vector.lanes))

    return vector(mask, when_true, when_false), emit


def _chooser(relation: str) -> Callable[..., Any]:
    def choose(typing_context, left, right):
        vector = _common_vector(left, right)
        if vector is None:
            return None

        def emit(context, builder, signature, arguments):
            a, b = _as_vectors(builder, signature.args, arguments, vector.lanes)
            return builder.select(builder.fcmp_ordered(relation, a, b), a, b)

        return vector(left, right), emit

    return _in_kernels(choose)


least, most = _chooser("<"), _chooser(">")
"""The smaller or larger of two, lane by lane; either may be a float32. The right one where the left is NaN."""


@_in_kernels
def square_root(typing_context, value):
    """The square root of each lane, correctly rounded; NaN below 0."""
    if not isinstance(value, _Vector):
        return None

    def emit(context, builder, signature, arguments):
        kind = arguments[0].type
        name = f"llvm.sqrt.v{value.lanes}f32"
        return builder.call(cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind]), name), arguments)

    return value(value), emit


@_in_kernels
def negative_unless(typing_context, mask, value):
    """The value in the lanes of the mask, minus its magnitude in the others."""
    if not isinstance(mask, _Mask) or not isinstance(value, _Vector) or mask.lanes != value.lanes:
        return None

    def emit(context, builder, signature, arguments):
        signs = _constant(_INT, [1 << 31] * value.lanes)
        sign = builder.select(arguments[0], _constant(_INT, [0] * value.lanes), signs)
        return builder.bitcast(builder.or_(builder.bitcast(arguments[1], signs.type), sign), arguments[1].type)

    return value(mask, value), emit


_MAGIC = np.float32(3 << 22)  # adding it leaves no bits for a fraction


@_in_kernels
def _times_two_to_the(typing_context, value, rounded):
    """Multiply by 2^n, where `rounded` is n + `_MAGIC` and so holds n in its lowest bits."""
    if _common_vector(value, rounded) is None:
        return None

    def emit(context, builder, signature, arguments):
        shift = _constant(_INT, [23] * value.lanes)
        bits, count = (builder.bitcast(argument, shift.type) for argument in arguments)
        return builder.bitcast(builder.add(bits, builder.shl(count, shift)), arguments[0].type)

    return value(value, rounded), emit


# 2^f on [-0.5, 0.5]: the polynomial of degree 5 with the least relative error, 7.5e-8 (own Remez exchange).
_E0, _E1, _E2, _E3, _E4, _E5 = (
    np.float32(c)
    for c in (1.0000000716546849, 0.6931469670647613, 0.2402211972384, 0.055507132734969, 0.0096755413344494, 0.001327647199185)
)


@inlined
def exp2(power):
    """2^power in all lanes, to 3e-7 relative for -126 < power < 127; beyond that any bits, so select before use."""
    rounded = power + _MAGIC
    f = power - (rounded - _MAGIC)
    root = ((((_E5 * f + _E4) * f + _E3) * f + _E2) * f + _E1) * f + _E0
    return _times_two_to_the(root, rounded)


@_in_kernels
def prefetch(typing_context, array, row, to_write):
    """Ask for the cache line at the start of a row of a C-contiguous 2-D array. `to_write`: a literal, as for all hints."""
    if not (isinstance(array, types.Array) and array.layout == "C" and array.ndim == 2 and isinstance(row, types.Integer)):
        return None
    if not isinstance(to_write, types.Literal):
        return None
    hint = int(to_write.literal_value)

    def emit(context, builder, signature, arguments):
        view = context.make_array(signature.args[0])(context, builder, arguments[0])
        stride = builder.extract_value(view.strides, 0)
        byte = ir.IntType(8).as_pointer()
        offset = builder.mul(
            builder.sext(arguments[1], stride.type) if signature.args[1].bitwidth < 64 else arguments[1], stride
        )
        address = builder.gep(builder.bitcast(view.data, byte), [offset])
        kind = ir.FunctionType(ir.VoidType(), [byte, _INT, _INT, _INT])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(function, [address, *(ir.Constant(_INT, value) for value in (hint, 3, 1))])
        return context.get_dummy_value()

    return types.void(array, row, to_write), emit


@_in_kernels
def low_half(typing_context, value):
    """The first eight of sixteen lanes."""
    return _half(value, 0)


@_in_kernels
def high_half(typing_context, value):
    """The last eight of sixteen lanes."""
    return _half(value, 8)


def _half(value: Any, first: int) -> Any:
    if value != F32x16:
        return None

    def emit(context, builder, signature, arguments):
        return _shuffle(builder, arguments[0], arguments[0], list(range(first, first + 8)))

    return F32x8(value), emit


def _fold(builder: Any, left: Any, right: Any, kept: list[int], added: list[int]) -> Any:
    """Halve two vectors into one: lanes `kept` plus lanes `added` (0-7 of `left`, 8-15 of `right`)."""
    return builder.fadd(_shuffle(builder, left, right, kept), _shuffle(builder, left, right, added))


@_in_kernels
def sums_of_eight(typing_context, a, b, c, d, e, f, g, h):
    """The sums over the lanes of eight F32x8, as one: a transposition on the way costs 7 additions, not 56."""
    if any(vector != F32x8 for vector in (a, b, c, d, e, f, g, h)):
        return None

    def emit(context, builder, signature, vectors):
        pairs = [
            _fold(builder, vectors[i], vectors[i + 1], [0, 8, 2, 10, 4, 12, 6, 14], [1, 9, 3, 11, 5, 13, 7, 15])
            for i in (0, 2, 4, 6)
        ]
        fours = [
            _fold(builder, pairs[i], pairs[i + 1], [0, 1, 8, 9, 4, 5, 12, 13], [2, 3, 10, 11, 6, 7, 14, 15]) for i in (0, 2)
        ]
        return _fold(builder, fours[0], fours[1], [0, 1, 2, 3, 8, 9, 10, 11], [4, 5, 6, 7, 12, 13, 14, 15])

    return F32x8(*(F32x8,) * 8), emit


@_in_kernels
def sum_of_lanes(typing_context, value):
    """The sum over the lanes of an F32x8, float32."""
    if value != F32x8:
        return None

    def emit(context, builder, signature, arguments):
        vector = arguments[0]
        for lanes in ([4, 5, 6, 7, 0, 1, 2, 3], [2, 3, 0, 1, 6, 7, 4, 5], [1, 0, 3, 2, 5, 4, 7, 6]):
            vector = builder.fadd(vector, _shuffle(builder, vector, vector, lanes))
        return builder.extract_element(vector, ir.Constant(_INT, 0))

    return types.float32(value), emit


@_in_kernels
def any_lane(typing_context, mask):
    """Whether the mask is set anywhere."""
    if not isinstance(mask, _Mask):
        return None

    def emit(context, builder, signature, arguments):
        return cgutils.is_not_null(builder, builder.bitcast(arguments[0], ir.IntType(mask.lanes)))

    return types.boolean(mask), emit
