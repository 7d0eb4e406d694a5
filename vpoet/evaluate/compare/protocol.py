"""What has to be equal for distances between sets of clips to be comparable: one value, with a short name for it.

The same samples get very different distances by how frames are resized, how many clips there are and where they begin
(Skorokhodov et al., 2022, section 4). So every figure stands beside the `Protocol.id` that it was made under.

The presets are what published code does, as far as it says so:

    stylegan-v-16, -128   universome/stylegan-v, src/metrics: fvd2048_16f and fvd2048_128f. Real clips begin at a
                          random frame, samples at their first; pictures have the data set's size, and the network
                          itself resizes them. (Its covariances divide by N, here by N - 1: 0.05% at 2,048 clips.)
    videogpt-ucf          wilson1yan/VideoGPT, scripts/compute_fvd.py: 256 clips, the shorter side to 128, the middle.
                          Its I3D, i3d_pretrained_400.pt, gets pixels in [-0.5, 0.5], where all others give [-1, 1]:
                          `REACH`. It draws from all windows of the videos; here a video gives one.
    jedi                  oooolga/JEDi, videojedi 1.1.0: 16 frames, 5,000 clips, V-JEPA ViT-H/16 with the probe of
                          SSv2 (vith16.pth.tar and ssv2-probe.pth.tar in a folder), and of what is reported the MMD:
                          times 100, (x . y / D)^2. It leaves resizing to its user; here 224, the middle, as V-JEPA's.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

from vpoet.errors import ConfigError

Filter = Literal["bilinear", "bicubic"]
Fit = Literal["none", "crop", "stretch"]
Start = Literal["first", "random"]
MOST = 10**9
COLOUR = "RGB, 8 bits, full range"
FVD_WEIGHTS = {
    "bec6519f66ea534e953026b4ae2c65553c17bf105611c746d904657e5860a5e2": "I3D of Kinetics-400, i3d_torchscript.pt",
    "55095f049e706479d48e221adcdb145b2b9dc930ba28b081ed72367ffaa32343": "I3D of Kinetics-400, i3d_pretrained_400.pt",
}
"""SHA-256 of the weights whose Frechet distance is called FVD (Unterthiner et al., 2018)."""


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How clips are taken and compared. A field that is not given is that of the preset ``vpoet-16``."""

    frames: int = 16
    """Of each clip."""
    step: int = 1
    """A clip takes every so manyth frame."""
    fps: float = 0.0
    """Frames per second that videos are read at, by the frame nearest in time; 0: every frame of the file."""
    real_start: Start = "first"
    """Where real clips begin; the others begin at their first frame."""
    fit: Fit = "crop"
    """crop: scaled to cover ``size``, the middle is kept; stretch: scaled to it; none: the files' own size, all alike.
    """
    size: int = 128
    """Pixels of both sides; 0 with fit ``none``."""
    filter: Filter = "bicubic"
    antialias: bool = True
    count: int = 0
    """Clips of each set; 0: as many as the smaller set has."""
    seed: int = 0
    """Of which clips are taken, where they begin, and of all resampling."""
    network: str = ""
    """SHA-256 of the feature network's weights."""
    network_input: str = ""
    """What the network does to the frames that it gets, and what its features are."""

    def __post_init__(self) -> None:
        """ConfigError names the first field that cannot be."""
        for name, kind in (("real_start", Start), ("fit", Fit), ("filter", Filter)):
            if getattr(self, name) not in get_args(kind):
                raise ConfigError(f"{name} is one of {', '.join(get_args(kind))}, not {getattr(self, name)!r}")
        for name, least in (("frames", 1), ("step", 1), ("fps", 0), ("count", 0), ("seed", 0), ("size", 0)):
            if not least <= getattr(self, name) < MOST:
                raise ConfigError(f"{name} is {least} or more, and less than {MOST:,}, not {getattr(self, name)}")
        if (self.fit == "none") != (self.size == 0):
            raise ConfigError(f"fit {self.fit} and size {self.size}: the size is 0 with fit none, and only with it")

    @property
    def span(self) -> int:
        """Frames from a clip's first to its last, both counted."""
        return 1 + (self.frames - 1) * self.step

    def told(self) -> dict[str, Any]:
        """All that is hashed."""
        return asdict(self) | {"colour": COLOUR}

    @property
    def id(self) -> str:
        """Eight hex digits: equal for equal protocols alone."""
        return _digest(self.told())[:8]

    @property
    def pixels(self) -> str:
        """Of what decides about a clip's features, given where it begins: not how many clips there are."""
        told = self.told()
        return _digest({name: told[name] for name in told if name not in ("count", "seed", "real_start")})

    @property
    def title(self) -> str:
        """What the Frechet distance is called: FVD with known weights alone."""
        if self.network in FVD_WEIGHTS:
            return f"FVD ({FVD_WEIGHTS[self.network]})"
        return f"Frechet distance (features {self.network[:8]})"


PRESETS: Mapping[str, Protocol] = {
    "vpoet-16": Protocol(),
    "stylegan-v-16": Protocol(frames=16, real_start="random", fit="none", size=0, count=2048),
    "stylegan-v-128": Protocol(frames=128, real_start="random", fit="none", size=0, count=2048),
    "videogpt-ucf": Protocol(real_start="random", filter="bilinear", antialias=False, count=256),
    "jedi": Protocol(size=224, filter="bilinear", count=5000),
}
REACH: Mapping[str, float] = {"videogpt-ucf": 0.5}
"""Presets under which I3D gets other pixels than those in [-1, 1]."""


def choose(preset: str, changes: Mapping[str, Any]) -> Protocol:
    """A preset with some fields changed, None for those that are not; ConfigError: no such preset, or a bad value."""
    if preset not in PRESETS:
        raise ConfigError(f"no protocol {preset!r}; there are {', '.join(PRESETS)}")
    known = {field.name for field in fields(Protocol)}
    assert changes.keys() <= known
    return replace(PRESETS[preset], **{name: value for name, value in changes.items() if value is not None})


def _digest(told: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
