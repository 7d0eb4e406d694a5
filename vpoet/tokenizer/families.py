"""Which network a tokenizer's config describes: ours, or one that others have trained.

A config of an imported tokenizer says its ``family``; one without is of ours.
"""

from pathlib import Path
from typing import Any

from vpoet import config
from vpoet.errors import ConfigError
from vpoet.tokenizer.autoencoder import Autoencoder, AutoencoderConfig
from vpoet.tokenizer.imported import cosmos, emu3, vidtok
from vpoet.tokenizer.network import Network

NETWORKS: dict[type[Any], type[Network]] = {
    AutoencoderConfig: Autoencoder,
    cosmos.CosmosConfig: cosmos.Cosmos,
    vidtok.VidTokConfig: vidtok.VidTok,
    emu3.Emu3Config: emu3.Emu3,
}
IMPORTED: dict[str, type[Any]] = {
    cosmos.FAMILY: cosmos.CosmosConfig,
    vidtok.FAMILY: vidtok.VidTokConfig,
    emu3.FAMILY: emu3.Emu3Config,
}


def load_settings(path: str | Path) -> Any:
    """The config of a file; ConfigError if it is none, or of a family that is not known."""
    family = config.given(path).get("family")
    if family is None:
        return config.load(path, AutoencoderConfig)
    if str(family) not in IMPORTED:
        raise ConfigError(
            f"{path}: family is {family!r}, and the imported tokenizers are {', '.join(IMPORTED)}; a newer vpoet may "
            "know it"
        )
    return config.load(path, IMPORTED[str(family)])


def build(settings: Any) -> Network:
    """The network of a config, its weights not yet those of anybody."""
    network: Network = NETWORKS[type(settings)](settings)
    return network
