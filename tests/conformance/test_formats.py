"""The tensor notation loses nothing, and rounding is what the hardware does."""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conformance.exact import ctx, exact, real
from conformance.formats import (
    FLOATS,
    FormatError,
    SameAs,
    decode,
    dtype_of,
    encode,
    resolve,
    round_all,
    round_exact,
    ulp,
)

NAMES = (*FLOATS, "complex64", "complex128", "int32", "int64", "bool")
SHAPES = st.lists(st.integers(0, 4), max_size=4).map(tuple)


@st.composite
def tensors(draw: st.DrawFn) -> np.ndarray[Any, Any]:
    """Any bits at all, NaN payloads included."""
    dtype, shape = dtype_of(draw(st.sampled_from(NAMES))), draw(SHAPES)
    size = math.prod(shape) * dtype.itemsize
    raw = draw(st.binary(min_size=size, max_size=size))
    if dtype == np.dtype(bool):
        raw = bytes(byte & 1 for byte in raw)
    return np.frombuffer(raw, dtype=dtype).reshape(shape)


@given(tensors())
def test_a_tensor_comes_back_with_every_bit(tensor: np.ndarray[Any, Any]) -> None:
    again = decode(encode(tensor))
    assert (again.dtype, again.shape) == (tensor.dtype, tensor.shape)
    assert again.tobytes() == tensor.tobytes()


@given(tensors())
def test_the_order_is_c_whatever_the_memory_is(tensor: np.ndarray[Any, Any]) -> None:
    assert encode(np.array(tensor, order="F")) == encode(tensor)
    assert decode(encode(tensor.T)).tobytes() == tensor.T.tobytes()


@pytest.mark.parametrize(
    ("values", "dtype", "bits"),
    [
        ([3.0, -1.0, 0.5], "float32", "40400000 bf800000 3f000000"),
        ([1.0, -0.0], "float64", "3ff0000000000000 8000000000000000"),
        ([1.0, np.inf], "float16", "3c00 7c00"),
        ([1.0, 2.0**-133], "bfloat16", "3f80 0001"),
        ([1, -1], "int32", "00000001 ffffffff"),
        ([-2], "int64", "fffffffffffffffe"),
        ([True, False], "bool", "1 0"),
        ([1 - 2j], "complex64", "3f800000 c0000000"),
    ],
)
def test_the_notation_is_the_ieee_bits_big_endian(values: Any, dtype: str, bits: str) -> None:
    tensor = np.array(values).astype(dtype_of(dtype))
    assert encode(tensor) == {"dtype": dtype, "shape": [len(values)], "bits": bits}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"bits": "40400000"}, "needs 2 words of 8 digits, got 1 words"),
        ({"bits": "40400000 4080000"}, "needs 2 words of 8 digits"),
        ({"bits": "4040000g 40800000"}, "not hexadecimal"),
        ({"bits": ["40400000", "40800000"]}, "must be one string"),
        ({"dtype": "float8"}, "unknown dtype 'float8'"),
        ({"dtype": "float64"}, "needs 2 words of 16 digits"),
        ({"dtype": "bool", "bits": "1 2"}, "written 0 or 1"),
        ({"shape": [-1, -2]}, "needs"),
        ({"shape": None}, "a tensor needs dtype, shape and bits"),
    ],
)
def test_a_damaged_tensor_is_one_line(change: dict[str, Any], words: str) -> None:
    notation = {"dtype": "float32", "shape": [2], "bits": "40400000 40800000"}
    assert decode(notation).tolist() == [3, 4]
    with pytest.raises(FormatError, match=words) as caught:
        decode(notation | change)
    assert "\n" not in str(caught.value)


def bits64(word: int) -> float:
    return float(np.array(word, dtype=np.uint64).view(np.float64))


doubles = st.one_of(
    st.integers(0, 2**64 - 1).map(bits64),
    st.floats(-(2.0**20), 2.0**20),
    # Around the smallest and the largest numbers of the 16-bit formats and of float32.
    st.builds(lambda m, e: math.ldexp(m, e), st.integers(-(2**27), 2**27), st.integers(-180, 110)),
)


def same(a: Any, b: Any) -> bool:
    """Equal bits, but any NaN is any NaN and zeros have no sign: an exact zero has none."""
    x, y = float(a), float(b)
    return (math.isnan(x) and math.isnan(y)) or x == y


@given(doubles)
@settings(max_examples=500)
def test_rounding_is_the_cast_of_the_hardware(value: float) -> None:
    with np.errstate(all="ignore"):
        assert same(round_exact(real(value), "float64"), value)
        assert same(round_exact(real(value), "float32"), np.float64(value).astype(np.float32))
        assert same(round_exact(real(value), "float16"), np.float64(value).astype(np.float16))
        # A cast to bfloat16 goes by way of float32, so it starts there.
        single = np.float64(value).astype(np.float32)
        assert same(round_exact(real(single), "bfloat16"), single.astype(ml_dtypes.bfloat16))


@pytest.mark.parametrize("name", ["float32", "float16", "bfloat16"])
def test_ties_go_to_even_and_a_hair_beside_a_tie_does_not(name: str) -> None:
    fmt = FLOATS[name]
    hair = 1 + ctx.mpf(2) ** -150
    for word in (0, 1, 2, 3, int(fmt.bits.type(np.array(1.5, fmt.dtype).view(fmt.bits))), 5):
        low = np.array([word], fmt.bits).view(fmt.dtype)[0]
        high = np.array([word + 1], fmt.bits).view(fmt.dtype)[0]
        tie = (real(low) + real(high)) / 2
        even = low if word % 2 == 0 else high
        assert float(round_exact(tie, name)) == float(even)
        assert float(round_exact(tie / hair, name)) == float(low)
        assert float(round_exact(tie * hair, name)) == float(high)
        assert float(round_exact(-tie, name)) == -float(even)


@pytest.mark.parametrize("name", list(FLOATS))
def test_half_a_step_above_the_largest_number_is_infinite(name: str) -> None:
    fmt = FLOATS[name]
    two = ctx.mpf(2)
    largest = two**fmt.emax * (2 - two ** (1 - fmt.precision))
    edge = two**fmt.emax * (2 - two**-fmt.precision)
    below = edge * (1 - two**-150)
    signed = round_all(np.array([largest, below, edge, -edge], dtype=object), name)
    assert real(signed[0]) == largest
    assert real(signed[1]) == largest
    assert np.isinf(signed[2])
    assert signed[2] > 0 > signed[3]


@given(st.integers(0, 2**64 - 1).map(bits64), st.integers(0, 2**64 - 1).map(bits64))
def test_a_rounded_exact_product_is_the_product_of_the_hardware(a: float, b: float) -> None:
    with np.errstate(all="ignore"):
        assert same(round_exact(real(a) * real(b), "float64"), np.float64(a) * np.float64(b))


@pytest.mark.parametrize(
    ("value", "name", "spacing"),
    [
        (1.0, "float32", 2.0**-23),
        (1.9999, "float32", 2.0**-23),
        (2.0, "float32", 2.0**-22),
        (-3.0, "float16", 2.0**-9),
        (1.0, "bfloat16", 2.0**-7),
        (0.0, "float32", 2.0**-149),
        (1e-44, "float32", 2.0**-149),
        (1.0, "float64", 2.0**-52),
    ],
)
def test_an_ulp_is_the_distance_to_the_next_number(value: float, name: str, spacing: float) -> None:
    assert ulp(value, name) == spacing


def test_infinity_has_no_ulp() -> None:
    assert np.isnan(ulp(np.array([np.inf, np.nan]), "float32")).all()


def test_an_entry_that_is_the_same_as_an_earlier_one_is_the_same_object() -> None:
    first, other = np.array([1.0, 2.0]), np.array([1.0, 2.0])
    resolved = resolve({"grads": [first, None, other, SameAs(same_as=0)], "max": 3})
    assert resolved["grads"][3] is first
    assert resolved["grads"][2] is other
    assert resolved["max"] == 3


@pytest.mark.parametrize("index", [1, -1, 2, "0", None])
def test_same_as_names_an_earlier_entry(index: Any) -> None:
    with pytest.raises(FormatError, match="earlier entry"):
        resolve([np.zeros(2), {"same_as": index}])


def test_complex_numbers_are_rounded_part_by_part() -> None:
    third = ctx.mpc(1, -2) / 3
    rounded = round_all(np.array([third, ctx.mpf("nan")], dtype=object), "complex64")
    assert rounded.dtype == np.complex64
    assert rounded[0] == np.complex64(complex(np.float32(1 / 3), np.float32(-2 / 3)))
    assert np.isnan(rounded[1])
    assert exact(rounded[:1])[0].imag == float(np.float32(-2 / 3))
