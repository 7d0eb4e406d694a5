"""How codes are drawn: guidance, temperature and filters, checked."""

from dataclasses import dataclass

from vpoet.errors import PromptError

MOST = 1e6
"""Of guidance, temperature and top-k: beyond it nothing changes but that logits pass the range of their numbers."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How codes are drawn. Filters apply to each group of digits, in the order of the fields below guidance."""

    guidance: float = 1.0
    """Scale of classifier-free guidance; 1 is the plain model, and costs half as much as any other."""
    temperature: float = 1.0
    """0 takes the most probable digit."""
    top_k: int = 0
    """Keep the k most probable; 0 keeps all."""
    top_p: float = 1.0
    """Keep the fewest of the most probable whose mass is at least p."""
    min_p: float = 0.0
    """Keep those that are at least so many times as probable as the likeliest; 0 keeps all."""

    def __post_init__(self) -> None:
        for name, wrong, allowed in (
            ("guidance", not 0 <= self.guidance <= MOST, f"0 to {MOST:g}"),
            ("temperature", not 0 <= self.temperature <= MOST, f"0 to {MOST:g}"),
            ("top_k", not 0 <= self.top_k <= MOST, f"0 (off) to {MOST:g}"),
            ("top_p", not 0 < self.top_p <= 1, "above 0 and at most 1 (off)"),
            ("min_p", not 0 <= self.min_p <= 1, "0 (off) to 1"),
        ):
            if wrong:
                raise PromptError(f"{name} = {getattr(self, name)}: it must be {allowed}")

    @property
    def filtered(self) -> bool:
        return self.top_k > 0 or self.top_p < 1 or self.min_p > 0
