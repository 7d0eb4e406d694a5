"""What lies before what in the platformer: its pictures drawn once more, each in the colour of its layer.

Everything is drawn where and when it always is, without soft rims, so that each pixel is of one layer, exactly: of the
last that covers half of it or more.
"""

import numpy as np
import numpy.typing as npt

from vpoet.arrays import Frames, Mask
from vpoet.errors import DataError
from vpoet.worlds.platformer.scenery import ITEMS, Scenery
from vpoet.worlds.platformer.sprites import Sprite

LAYERS = ("sky", "backdrop", "water", "ground", "ladder", "item", "creature", "character")
"""From the farthest to the nearest."""
SEGMENTATION: dict[str, tuple[int, ...]] = dict(
    zip(
        LAYERS,
        ((0, 0, 0), (0, 0, 255), (0, 255, 255), (0, 255, 0), (255, 255, 0), (255, 0, 255), (255, 0, 0), (255,) * 3),
        strict=True,
    )
)
"""Corners of the cube of colours, as far from each other as there are eight."""
DEPTH: dict[str, tuple[int, ...]] = {layer: (36 * i,) * 3 for i, layer in enumerate(LAYERS)}
"""The nearer, the brighter."""
KINDS = ("segmentation", "depth", "pose")
"""Control signals that these layers tell; a pose is the outline of who is seen, in the colours of a segmentation."""
_FIGURES = ("creature", "character")
_SOLID = 0.5


class Layers(Scenery):
    """Draws layers in place of pictures."""

    colours: dict[str, tuple[int, ...]]

    def picture(self, name: str, height: float, mirrored: bool = False) -> Sprite:
        """The sprite as one colour."""
        found = super().picture(name, height, mirrored)
        solid = (found.pixels[..., 3:] >= _SOLID).astype(np.float32)
        colour = np.array((*self.colours[layer_of(name)], 1), np.float32)
        return found._replace(pixels=solid * colour)

    def _sky(self, sky: str, wide: float, floor: float) -> npt.NDArray[np.float32]:
        return np.broadcast_to(np.array(self.colours["sky"], np.float32), (self.height, self.width, 3)).copy()

    def _cover(
        self, stage: npt.NDArray[np.float32], cover_HW1: npt.NDArray[np.float32], colour: npt.NDArray[np.float32]
    ) -> None:
        stage[cover_HW1[..., 0] >= _SOLID] = self.colours["backdrop"]


def layer_of(picture: str) -> str:
    """The layer of a picture of the world, by its name."""
    if picture in ITEMS.values():
        return "item"
    if picture.startswith("tiles/"):
        return "water" if picture.startswith("tiles/water") else "ground"
    folder = picture.partition("/")[0]
    return {"animated_characters": "character", "enemies": "creature", "items": "ladder"}[folder]


def colours_of(kind: str) -> dict[str, tuple[int, ...]]:
    """The colour of each layer in a signal of this kind. DataError: there is no such signal here."""
    if kind not in KINDS:
        raise DataError(f"world:platformer: it tells no {kind} of its clips; it tells {', '.join(KINDS)}")
    return DEPTH if kind == "depth" else SEGMENTATION


def outlines(layers: Frames) -> Frames:
    """Of a segmentation uint8 [T, H, W, 3], the rims of its figures, two pixels wide, on black."""
    made = np.zeros_like(layers)
    for layer in _FIGURES:
        figure = np.all(layers == np.array(SEGMENTATION[layer], np.uint8), axis=-1)
        made[figure & ~_worn(_worn(figure))] = SEGMENTATION[layer]
    return made


def labels(segmentation: Frames) -> npt.NDArray[np.uint8]:
    """[T, H, W]: of each pixel of a segmentation, the index of the layer in `LAYERS` whose colour is nearest."""
    palette = np.array([SEGMENTATION[layer] for layer in LAYERS], np.int32)
    away = np.abs(segmentation[..., None, :].astype(np.int32) - palette).sum(-1)
    found: npt.NDArray[np.uint8] = away.argmin(-1).astype(np.uint8)
    return found


def _worn(mask_THW: Mask) -> Mask:
    """Without the pixels at its rim; what lies beyond the picture counts as the mask."""
    padded = np.pad(mask_THW, ((0, 0), (1, 1), (1, 1)), constant_values=True)
    inner = padded[:, :-2, 1:-1] & padded[:, 2:, 1:-1] & padded[:, 1:-1, :-2] & padded[:, 1:-1, 2:]
    return np.asarray(inner & mask_THW)
