"""The arrays that cross the public boundaries, by name."""

import numpy as np
import numpy.typing as npt

Frames = npt.NDArray[np.uint8]
"""A video [T, H, W, 3], or one frame [H, W, 3]: RGB, full range."""
Codes = npt.NDArray[np.int32]
"""Visual codes [t, h, w], one index per cell."""
Ints = npt.NDArray[np.int32]
Longs = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
