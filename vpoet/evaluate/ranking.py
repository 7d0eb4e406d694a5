"""Clips and prompts in the order of how probable a model finds them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vpoet.generate.likelihood import Likelihood, posterior


@dataclass(frozen=True, eq=False, slots=True)
class Ranked:
    """A clip under one prompt."""

    video: str
    prompt: str
    likelihood: Likelihood
    posterior: float | None
    """p(prompt | clip) among the clip's prompts; None if it was scored with one alone."""

    @property
    def label(self) -> str:
        return f"{self.video}  {self.prompt}".rstrip()

    def record(self) -> dict[str, Any]:
        """As JSON has it. Cell i in time stands for the frames from edge i up to, not with, edge i + 1."""
        score = self.likelihood
        return {
            "video": self.video,
            "prompt": self.prompt,
            "task": score.task,
            "nats": score.total.nats,
            "bits": score.total.bits,
            "tokens": score.tokens,
            "frames": score.frames,
            "pixels": score.pixels,
            "bits_per_token": score.per_token.bits,
            "bits_per_frame": score.per_frame.bits,
            "bits_per_pixel": score.per_pixel.bits,
            "posterior": self.posterior,
            "edges": score.edges,
            "nats_by_time": score.by_time,
        }


def of_clip(video: str, prompts: Sequence[str], scores: Sequence[Likelihood]) -> list[Ranked]:
    """A clip under each of its prompts, the most probable first."""
    shares = posterior(scores).tolist() if len(scores) > 1 else [None] * len(scores)
    rows = [Ranked(video, *each) for each in zip(prompts, scores, shares, strict=True)]
    return sorted(rows, key=lambda row: row.likelihood.total.nats)


def ranked(clips: Sequence[Sequence[Ranked]]) -> list[Ranked]:
    """The rows of clips, those first whose most probable prompt takes the fewest bits per token."""
    return [row for clip in sorted(clips, key=lambda clip: clip[0].likelihood.per_token.bits) for row in clip]


def in_words(rows: Sequence[Ranked]) -> list[str]:
    """A table for people, a line each."""
    width = max(len(row.video) for row in rows)
    lines = [f"{'bits':>10} {'/token':>8} {'/frame':>9} {'/pixel':>8}  posterior  {'video':{width}}  prompt"]
    for row in rows:
        score = row.likelihood
        bits = f"{score.total.bits:10.1f} {score.per_token.bits:8.3f} {score.per_frame.bits:9.2f}"
        share = "" if row.posterior is None else f"{row.posterior:.4f}"
        prompt = row.prompt or "(none)"
        lines.append(f"{bits} {score.per_pixel.bits:8.4f}  {share:>9}  {row.video:{width}}  {prompt}")
    return lines
