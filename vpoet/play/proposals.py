"""Where plans are drawn from, and what is learned of the best of them: odds of actions, or means of vectors, by time.

Noise is coloured in time, its power falling with the frequency f as 1 / f^colour: what is done is done for a while, and
leads somewhere (iCEM: Pinneri et al., 2020, arXiv:2008.06389, section 3.1). At each time alone, actions have just the
odds, or the normal distribution, that is said.

Shapes: N plans of K actions; A actions that there are; D dimensions of a vector.
"""

from dataclasses import dataclass, replace
from typing import Protocol, Self

import numpy as np
import torch

from vpoet.arrays import Doubles
from vpoet.play.futures import Actions
from vpoet.sequence.actions import ActionSpace

LEAST = 0.01
"""Share of the odds that stays spread over all actions: none is given up for good."""
NARROWEST = 0.02
"""The same of the spread of vectors: a share of the width of their bounds."""


class Proposal(Protocol):
    """A distribution of plans."""

    def draw(self, random: np.random.Generator, count: int, colour: float) -> Actions:
        """[N, K] indices, or [N, K, D] vectors within their bounds."""

    def middle(self) -> Actions:
        """[K] or [K, D]: the likeliest plan."""

    def fitted(self, elites: Actions, kept: float) -> Self:
        """What these plans are drawn from, with a share ``kept`` of what it was."""

    def later(self, steps: int) -> Self:
        """After so many of its actions were carried out; of what comes behind the others nothing is known."""


@dataclass(frozen=True, eq=False, slots=True)
class Odds:
    """Of actions that have names."""

    odds_KA: Doubles
    """Each row's sum is 1."""

    @classmethod
    def even(cls, actions: int, horizon: int) -> "Odds":
        return cls(np.full((horizon, actions), 1 / actions))

    def draw(self, random: np.random.Generator, count: int, colour: float) -> Actions:
        horizon, actions = self.odds_KA.shape
        z_NAK = coloured(random, (count, actions, horizon), colour)
        # the logarithm of a normal's probability is a Gumbel's exponent: argmax draws by the odds (Gumbel-max)
        gumbel_NAK = -np.log(-torch.special.log_ndtr(torch.from_numpy(z_NAK)).numpy())
        plans: Actions = (np.log(self.odds_KA.T) + gumbel_NAK).argmax(1)
        return plans

    def middle(self) -> Actions:
        likeliest: Actions = self.odds_KA.argmax(1)
        return likeliest

    def fitted(self, elites: Actions, kept: float) -> "Odds":
        actions = self.odds_KA.shape[1]
        shares_KA = (elites[..., None] == np.arange(actions)).mean(0)
        odds_KA = kept * self.odds_KA + (1 - kept) * shares_KA
        return Odds((1 - LEAST) * odds_KA + LEAST / actions)

    def later(self, steps: int) -> "Odds":
        fresh_KA = np.full_like(self.odds_KA[:steps], 1 / self.odds_KA.shape[1])
        return Odds(np.concatenate([self.odds_KA[steps:], fresh_KA]))


@dataclass(frozen=True, eq=False, slots=True)
class Normal:
    """Of vectors within bounds; what is drawn beyond one is put on it."""

    mean_KD: Doubles
    spread_KD: Doubles
    low_D: Doubles
    high_D: Doubles

    @classmethod
    def wide(cls, low: Doubles, high: Doubles, horizon: int) -> "Normal":
        middle_KD, half_KD = (np.tile(x, (horizon, 1)) for x in ((low + high) / 2, (high - low) / 2))
        return cls(middle_KD, half_KD, low, high)

    def draw(self, random: np.random.Generator, count: int, colour: float) -> Actions:
        horizon, size = self.mean_KD.shape
        z_NKD = coloured(random, (count, size, horizon), colour).transpose(0, 2, 1)
        return self._within(self.mean_KD + self.spread_KD * z_NKD)

    def middle(self) -> Actions:
        return self._within(self.mean_KD)

    def fitted(self, elites: Actions, kept: float) -> "Normal":
        mean_KD = kept * self.mean_KD + (1 - kept) * elites.mean(0)
        spread_KD = kept * self.spread_KD + (1 - kept) * elites.std(0)
        least_D = NARROWEST * (self.high_D - self.low_D)
        return replace(self, mean_KD=mean_KD, spread_KD=np.maximum(spread_KD, least_D))

    def later(self, steps: int) -> "Normal":
        fresh = Normal.wide(self.low_D, self.high_D, len(self.mean_KD))
        mean_KD = np.concatenate([self.mean_KD[steps:], fresh.mean_KD[:steps]])
        spread_KD = np.concatenate([self.spread_KD[steps:], fresh.spread_KD[:steps]])
        return replace(self, mean_KD=mean_KD, spread_KD=spread_KD)

    def _within(self, plans: Actions) -> Actions:
        return np.clip(plans, self.low_D, self.high_D)


def anything(space: ActionSpace, horizon: int) -> Proposal:
    """Every action as likely as any other, at all times; vectors spread as widely as their bounds."""
    if space.names:
        return Odds.even(len(space.names), horizon)
    return Normal.wide(np.array(space.low), np.array(space.high), horizon)


def coloured(random: np.random.Generator, shape: tuple[int, ...], colour: float) -> Doubles:
    """Normal noise of mean 0 and variance 1 whose power falls along the last axis as 1 / f^colour; 0 is white noise.

    Made in frequencies (Timmer and König, 1995); the lowest one, of noise that never changes, is given the power of
    the next.
    """
    steps = shape[-1]
    if steps == 1:
        return random.standard_normal(shape)
    period = 2 * steps  # of twice the length: what comes round again is cut off, and its end is not like its beginning
    frequencies = np.fft.rfftfreq(period)
    frequencies[0] = frequencies[1]
    scale = frequencies ** (-colour / 2)
    real, imaginary = random.standard_normal((2, *shape[:-1], len(frequencies)))
    imaginary[..., [0, -1]] = 0
    real[..., [0, -1]] *= np.sqrt(2)
    spectrum = scale * (real + 1j * imaginary)
    power = 2 * (2 * (scale[1:-1] ** 2).sum() + scale[0] ** 2 + scale[-1] ** 2) / period**2
    noise: Doubles = np.fft.irfft(spectrum, period)[..., :steps] / np.sqrt(power)
    return noise
