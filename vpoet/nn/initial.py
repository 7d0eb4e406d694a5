"""Transformers laid out without weights, and their weights one at a time: drawn, or whatever fills them.

A network of 8B parameters takes 32 GB in fp32, which no process has to hold to know its shapes, or to keep its share.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vpoet.nn.transformer import Transformer

Weights = Iterable[tuple[str, Tensor]]
"""Every weight of a module by name, in its own order, fp32 on the CPU; one at a time, so that few exist at once."""


class Undrawn(TorchFunctionMode):
    """Weights that are about to be loaded are not drawn at random first: on the meta device a normal draw alone makes
    torch import its compiler, which takes longer than sampling a clip."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", "") == "torch.nn.init":
            return kwargs["tensor"]
        return func(*args, **kwargs)


class Weightless(ExitStack):
    """A context in which modules are made on the meta device: with shapes, and without memory or random numbers."""

    def __enter__(self) -> Self:
        self.enter_context(torch.device("meta"))
        self.enter_context(Undrawn())
        return self


def drawn(transformer: Transformer) -> Weights:
    """The weights that a transformer made here and now would have, bit for bit; torch's random state stays where it is.

    They come in order from one generator, so whoever wants a share of them draws them all: 8B take a minute and a half.
    """
    generator = torch.Generator()
    generator.set_state(torch.get_rng_state())
    return _draw(transformer, generator)


def _draw(transformer: Transformer, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
    for module in transformer.modules():  # what torch's own constructors draw, before ours replaces it
        if isinstance(module, nn.Linear):
            torch.empty(module.weight.shape).uniform_(generator=generator)
        elif isinstance(module, nn.Embedding):
            torch.empty(module.weight.shape).normal_(generator=generator)
    for name, parameter in transformer.named_parameters():
        yield name, transformer.initial(name, torch.empty(parameter.shape), generator)


def completed(transformer: Transformer, known: Mapping[str, Tensor]) -> Weights:
    """The weights of a transformer that are ``known``, and those that are not as they would be drawn here and now."""
    names, generator = set(known), torch.Generator()
    generator.set_state(torch.get_rng_state())
    return (
        (name, known[name].float() if name in names else transformer.initial(name, torch.empty(like.shape), generator))
        for name, like in transformer.state_dict().items()
    )


@torch.no_grad()
def fill(module: nn.Module, weights: Weights, device: torch.device, dtype: torch.dtype = torch.float32) -> None:
    """Give the parameters of a module, which are those of a transformer inside, memory and these weights.

    They stay the same objects, so an optimiser may know them already.
    """
    for (name, parameter), (given, value) in zip(module.named_parameters(), weights, strict=True):
        assert given.endswith(name) or name.endswith(given), (name, given)
        filled = nn.Parameter(torch.empty(value.shape, dtype=dtype, device=device), parameter.requires_grad)
        torch.utils.swap_tensors(parameter, filled.copy_(value))  # type: ignore[no-untyped-call]
