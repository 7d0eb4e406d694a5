"""A subject with a word of its own: what a bundle is trained on so that it can be asked for in any prompt.

    clips       a clip or a few whose captions name the subject by the word: how it moves
    frames      all their frames, each an image of its own, in no order: how it looks, apart from how it moves
    prior       clips that the bundle makes of other prompts, with these prompts: what it shall not forget

Clips and frames are the mixed objective of Dreamix (Molad et al., arXiv:2302.01329); a rare word for the subject, and a
prior of the model's own making, are DreamBooth's (Ruiz et al., arXiv:2208.12242).
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from vpoet.arrays import Codes
from vpoet.data.folder import read_videos
from vpoet.data.lists import decode
from vpoet.data.shards import Manifest, ShardWriter
from vpoet.data.token_documents import Source
from vpoet.errors import ConfigError, DataError
from vpoet.media.video import Video
from vpoet.training.recipe import PretrainConfig

PRIOR = 128
"""Clips that the bundle makes, of the prompts in turn."""
SHARES = {"clips": 1.0, "frames": 1.0, "prior": 2.0}
"""Of the documents."""
STEPS = 200


def names(text: str, word: str) -> bool:
    """Whether a text names the subject."""
    return word.lower() in re.findall(r"[^\W_]+", text.lower())


def read_prior(path: Path, word: str, known: Collection[str]) -> list[str]:
    """The prompts of the prior, one on each line; empty lines and those that begin with # are none.

    ``known``: the bundle's words. ConfigError: ``word`` is none, or known. DataError: the file cannot be read, has no
    prompt, or one that names the subject.
    """
    if not re.fullmatch(r"[^\W_]+", word):
        raise ConfigError(f"--subject {word}: it is one word of letters and digits, as sks")
    if word.lower() in known:
        raise ConfigError(f"--subject {word}: the bundle knows this word already; choose one that it never met, as sks")
    try:
        lines = [line.strip() for line in decode(path.read_bytes()).splitlines()]
    except OSError as error:
        raise DataError(f"{path}: not readable as text: {error}") from None
    prompts = [line for line in lines if line and not line.startswith("#")]
    if not prompts:
        raise DataError(f"{path}: no prompt in it; write one on each line, of what the bundle shall go on to know")
    if naming := [prompt for prompt in prompts if names(prompt, word)]:
        raise DataError(f"{path}: the prior is of all but the subject, and a prompt names it: {naming[0]}")
    return prompts


def write_frames(raw: Path, out: Path, word: str) -> None:
    """Each frame of a folder of raw shards as an image in a shard of its own, with its clip's captions. DataError: a
    caption does not name the subject, or these are token shards."""
    if Manifest.load(raw).kind == "tokens":
        raise DataError(f"{raw}: token shards have no frames to learn a subject from; give the list, or the raw shards")
    with ShardWriter(out, kind="raw") as writer:
        for sample, clip in read_videos(raw):
            if not sample.captions or not all(names(caption, word) for caption in sample.captions):
                raise DataError(
                    f"{sample.json.get('source', sample.key)}: its caption {sample.captions} does not name {word}; a "
                    f"caption is as a prompt that asks for the clip would be: a {word} walks on grass"
                )
            told = {name: sample.json[name] for name in ("caption", "height", "width", "source", "license")}
            for number, frame in enumerate(clip.frames):
                fields = told | {"fps": 0.0, "frames": 1, "start": 0.0}
                image = Video(frame[None], 0.0).encode(".png")
                writer.write(f"{sample.key[:80]}-{number}", {"png": image, "json": fields})
    writer.manifest().save(out)


def write_prior(out: Path, prompts: Sequence[str], made: Sequence[Codes], fps: int, tokenizer: str) -> None:
    """Clips that were sampled, as token shards: their codes [t, h, w] as they were drawn."""
    with ShardWriter(out, kind="tokens", tokenizer=tokenizer) as writer:
        for number, (prompt, codes) in enumerate(zip(prompts, made, strict=True)):
            fields = {"caption": prompt, "fps": fps, "grid": list(codes.shape), "source": "the bundle itself"}
            writer.write(f"prior-{number}", {"codes.npy": codes, "json": fields})
    writer.manifest().save(out)


def for_subject(recipe: PretrainConfig, frames: Path, prior: Path) -> PretrainConfig:
    """A recipe that trains on clips, with the token shards of their frames and of the prior beside them."""
    (clips,) = recipe.data.sources
    weights = {clips.path: SHARES["clips"], str(frames): SHARES["frames"], str(prior): SHARES["prior"]}
    sources = [Source(path=path, weight=weight) for path, weight in weights.items()]
    # guidance leads away from what is drawn without a prompt, so that the subject must not be in it
    return replace(recipe, data=replace(recipe.data, sources=sources, drop_caption=0.0), steps=STEPS)
