"""How codes are drawn: guidance, temperature and filters, checked."""

from dataclasses import dataclass

from vpoet.generate.fields import Range, asked, check

MOST = 1e6
"""Of guidance, temperature and top-k: beyond it nothing changes but that logits pass the range of their numbers."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How codes are drawn. Filters apply to each group of digits, in the order of the fields below guidance."""

    guidance: float = asked(
        1.0,
        "Classifier-free guidance scale; above 1: closer to the prompt. [default: the model's]",
        alias="cfg",
        allowed=Range(0, MOST),
        own=True,
    )
    """Scale of classifier-free guidance; 1 is the plain model, and costs half as much as any other."""
    temperature: float = asked(
        1.0,
        "Sampling temperature; 0: always the likeliest code. [default: the model's]",
        allowed=Range(0, MOST),
        own=True,
    )
    """0 takes the most probable digit."""
    top_k: int = asked(0, "Top-k sampling: draw from the k likeliest codes; 0: all.", allowed=Range(0, MOST, off=0))
    top_p: float = asked(
        1.0,
        "Nucleus sampling: draw from the likeliest codes with this total probability; 1: all.",
        allowed=Range(0, 1, off=1, above=True),
    )
    """Keep the fewest of the most probable whose mass is at least p."""
    min_p: float = asked(
        0.0, "min-p sampling: drop codes less likely than this times the likeliest.", allowed=Range(0, 1, off=0)
    )

    def __post_init__(self) -> None:
        check(self)

    @property
    def filtered(self) -> bool:
        return self.top_k > 0 or self.top_p < 1 or self.min_p > 0
