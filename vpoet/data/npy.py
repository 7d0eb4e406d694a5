"""Codes as .npy files, of the smallest type that holds them."""

import io
from typing import Any

import numpy as np
import numpy.typing as npt

from vpoet.arrays import Codes
from vpoet.errors import DataError


def codes_to_npy(codes: npt.NDArray[Any]) -> bytes:
    """Codes, integers ``[t, h, w]`` of 0 and above, as the bytes of a .npy file: uint16 where they fit, else uint32."""
    if codes.ndim != 3 or codes.dtype.kind not in "iu" or (codes.size and codes.min() < 0):
        raise DataError(f"codes are integers [t, h, w] of 0 and above, not {codes.dtype} {codes.shape}")
    buffer = io.BytesIO()
    small = codes.max(initial=0) < 2**16
    np.save(buffer, np.ascontiguousarray(codes, np.uint16 if small else np.uint32), allow_pickle=False)
    return buffer.getvalue()


def npy_to_codes(data: bytes) -> Codes:
    """The inverse of `codes_to_npy`: ``int32 [t, h, w]``. DataError for anything else in a .npy."""
    try:
        codes = np.load(io.BytesIO(data), allow_pickle=False)
    except Exception as error:  # a damaged header asks for any size and type
        raise DataError(f"not a .npy of codes: {error}") from None
    if not isinstance(codes, np.ndarray):
        raise DataError("not a .npy of codes: several arrays in it")
    if codes.ndim != 3 or codes.dtype not in (np.uint16, np.uint32):
        raise DataError(f"codes are uint16 or uint32 [t, h, w], not {codes.dtype} {codes.shape}")
    if codes.max(initial=0) >= 2**31:
        raise DataError(f"code {codes.max()} does not fit int32")
    return codes.astype(np.int32)
