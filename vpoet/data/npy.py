"""Codes, and other integers, as .npy files, of the smallest type that holds them."""

import io
from typing import Any

import numpy as np
import numpy.typing as npt

from vpoet.arrays import Codes, Ints
from vpoet.errors import DataError


def codes_to_npy(codes: npt.NDArray[Any]) -> bytes:
    """Codes, integers ``[t, h, w]`` of 0 and above, as the bytes of a .npy file: uint16 where they fit, else uint32."""
    if codes.ndim != 3 or codes.dtype.kind not in "iu" or (codes.size and codes.min() < 0):
        raise DataError(f"codes are integers [t, h, w] of 0 and above, not {codes.dtype} {codes.shape}")
    return ints_to_npy(codes)


def ints_to_npy(values: npt.NDArray[Any]) -> bytes:
    """Integers of 0 and above, of any shape: uint16 where they fit, else uint32."""
    buffer = io.BytesIO()
    small = values.max(initial=0) < 2**16
    np.save(buffer, np.ascontiguousarray(values, np.uint16 if small else np.uint32), allow_pickle=False)
    return buffer.getvalue()


def npy_to_codes(data: bytes) -> Codes:
    """The inverse of `codes_to_npy`: ``int32 [t, h, w]``. DataError for anything else in a .npy."""
    codes = _load(data, "codes")
    if codes.ndim != 3 or codes.dtype not in (np.uint16, np.uint32):
        raise DataError(f"codes are uint16 or uint32 [t, h, w], not {codes.dtype} {codes.shape}")
    if codes.max(initial=0) >= 2**31:
        raise DataError(f"code {codes.max()} does not fit int32")
    return codes.astype(np.int32)


def npy_to_ints(data: bytes, shape: tuple[int | None, ...], *, below: int) -> Ints:
    """The inverse of `ints_to_npy`, for integers of this shape (None: of any length) and ``below`` a number; DataError
    for anything else."""
    values = _load(data, "integers")
    fits = len(shape) == values.ndim and all(n in (None, size) for n, size in zip(shape, values.shape, strict=True))
    if not fits or values.dtype not in (np.uint16, np.uint32) or values.max(initial=0) >= below:
        raise DataError(f"not integers {shape} below {below}, but {values.dtype} {values.shape}")
    return values.astype(np.int32)


def _load(data: bytes, what: str) -> npt.NDArray[Any]:
    try:
        values = np.load(io.BytesIO(data), allow_pickle=False)
    except Exception as error:  # a damaged header asks for any size and type
        raise DataError(f"not a .npy of {what}: {error}") from None
    if not isinstance(values, np.ndarray):
        raise DataError(f"not a .npy of {what}: several arrays in it")
    return values
