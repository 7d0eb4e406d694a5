"""Which weights of a transformer are trained, and from where they begin."""

from vpoet.nn import lora
from vpoet.nn.initial import Weights
from vpoet.nn.transformer import Transformer
from vpoet.training.recipe import PretrainConfig


def begin(transformer: Transformer, weights: Weights, config: PretrainConfig) -> Weights | None:
    """Freeze what is not trained. The weights that are still to be filled in: all, or None, as LoRA has done so."""
    if config.train == "controls":
        transformer.requires_grad_(False)
        transformer.controls.requires_grad_(True)
    if config.lora is None:
        return weights
    lora.begin(transformer, weights, config.lora)
    return None
