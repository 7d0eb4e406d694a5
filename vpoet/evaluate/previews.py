"""What the weights of a run in progress make: a tokenizer's reconstructions, and clips sampled for prompts, beside real
clips to hold them against: of those held out, the one whose caption comes nearest to the prompt.
"""

import json
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vpoet.arrays import Frames
from vpoet.data.shards import Problems
from vpoet.data.token_dataset import TokenDataset, TokenSample
from vpoet.errors import DataError, OutputError, VpoetWarning
from vpoet.evaluate.codes import CodeStatistics
from vpoet.evaluate.pixels import psnr, ssim
from vpoet.files import aside, inside, read_json, write_atomic
from vpoet.generate.decode import decode
from vpoet.generate.decoder import Decoding
from vpoet.generate.sampling import Sampling
from vpoet.media.sheet import contact_sheet
from vpoet.media.video import Video
from vpoet.nn import lora
from vpoet.nn.attention import backend
from vpoet.nn.transformer import Transformer
from vpoet.processes import Processes
from vpoet.sequence.arrangements import Sample
from vpoet.sequence.tasks import TABLE
from vpoet.sequence.vocabulary import Vocabulary
from vpoet.tokenizer.contract import Tokenizer
from vpoet.tokenizer.text import TextTokenizer
from vpoet.training.recipe import PretrainConfig
from vpoet.training.run.folder import SAMPLES
from vpoet.training.run.tracking import Sampled

SHEET_CLIPS = 4
SEARCHED = 2000
"""Captioned held-out clips, from the first on, among which the nearest one is looked for."""
REAL_LIST = "real.json"
"""Beside the samples: prompt, caption and file of each real clip, so that they are looked for once a run."""


def sample_prompts(
    config: PretrainConfig,
    weights: dict[str, Tensor],
    vocabulary: Vocabulary,
    text: TextTokenizer,
    video: Tokenizer,
    step: int,
) -> list[Sampled]:
    """Sample the recipe's prompts from a copy of the weights on the CPU, into RUN/samples/step-N-i.mp4.

    With each comes the held-out clip that is nearest to the prompt, where the run has any. A disk that takes no clip,
    or shards that cannot be read, are warned about, and training goes on.
    """
    wanted = config.samples
    with torch.random.fork_rng():  # the training's random state is not to move
        copy = Transformer(config.model, vocabulary).eval()
    weights = {name.removeprefix("transformer."): weight for name, weight in weights.items()}
    copy.load_state_dict(lora.trained(weights, config.lora))
    blank = np.zeros(video.grid(wanted.frames, wanted.height, wanted.width), dtype=np.int32)
    task = TABLE["t2i" if blank.shape[0] == 1 else "t2v"]
    prompts = [np.array(text.encode(prompt), dtype=np.int32) for prompt in wanted.prompts]
    decoding = Decoding(
        transformer=copy,
        attention=backend("sdpa", torch.device("cpu"), torch.float32),
        bidirectional=config.data.bidirectional,
        window=config.data.window,
    )
    decoded = decode(
        decoding,
        [task.document(Sample(prompt, blank, wanted.fps)) for prompt in prompts],
        range(len(prompts)),
        Sampling(temperature=wanted.temperature, guidance=wanted.guidance),
    )
    folder = Path(config.run) / SAMPLES
    shown: list[Sampled] = []
    try:
        folder.mkdir(exist_ok=True)
        for i, (prompt, result) in enumerate(zip(wanted.prompts, decoded, strict=True)):
            shown.append(Sampled(prompt, folder / f"step-{step}-{i}.mp4"))
            Video(video.decode(result.document.codes()), float(wanted.fps)).write(shown[-1].path)
        return with_real(shown, config, vocabulary, video)
    except (OSError, OutputError, DataError) as error:
        warnings.warn(f"{folder}: not all samples written: {error}; training goes on", VpoetWarning, stacklevel=2)
    return [sampled for sampled in shown if sampled.path.is_file()]


def reconstruct_clips(
    tokenizer: Tokenizer, clips: Frames, picture: Path, name: str, processes: Processes
) -> dict[str, float]:
    """Scores NAME/... of clips uint8 [N, T, H, W, 3], and a contact sheet of some originals and reconstructions.

    Every process calls, with all of the clips, takes its share of them, and has the scores of all; the first draws.
    """
    mine = []
    for number in range(processes.rank, len(clips), processes.world):
        codes = tokenizer.encode(clips[number])
        drawn = tokenizer.decode(codes)
        scores = psnr(clips[number], drawn), ssim(clips[number], drawn)
        mine.append((number, codes, *scores, drawn if number < SHEET_CLIPS else None))
    everyones = sorted(chain(*processes.gather(mine)), key=itemgetter(0))
    statistics = CodeStatistics(tokenizer.codebook_size)
    rows = []
    for number, codes, dB, _, reconstruction in everyones:
        statistics.update(codes)
        if reconstruction is not None:
            rows += [("original", clips[number]), (f"reconstruction, {dB:.1f} dB", reconstruction)]
    if processes.rank == 0:
        with aside(picture) as unfinished:
            contact_sheet(rows).save(unfinished)
    psnrs, ssims = ([one[place] for one in everyones] for place in (2, 3))
    return {
        f"{name}/psnr": float(np.mean(psnrs)),
        f"{name}/ssim": float(np.mean(ssims)),
        f"{name}/codes_used": float(statistics.used),
        f"{name}/code_bits": statistics.entropy,
    }


def with_real(
    shown: Sequence[Sampled], config: PretrainConfig, vocabulary: Vocabulary, video: Tokenizer
) -> list[Sampled]:
    """``shown`` with their real clips, which have been through the tokenizer as the sampled ones have.

    They lie in the folder of the samples as real-i.mp4. A run without captioned held-out clips has none.
    """
    if not shown:
        return []
    folder = shown[0].path.parent
    if set(known := read_real(folder)) != {sampled.prompt for sampled in shown}:
        clips = list(islice(_captioned(config, vocabulary), SEARCHED))
        rows = []
        for i, sampled in enumerate(shown if clips else []):
            caption, clip = max(clips, key=lambda each: likeness(sampled.prompt, each[0]))
            codes = clip.codes[:1] if config.samples.frames == 1 else clip.codes
            Video(video.decode(codes), float(clip.fps or config.samples.fps)).write(folder / f"real-{i}.mp4")
            rows.append({"prompt": sampled.prompt, "caption": caption, "file": f"real-{i}.mp4"})
        write_atomic(folder / REAL_LIST, json.dumps(rows, indent=1, ensure_ascii=False).encode())
        known = read_real(folder)
    return [replace(sampled, **known.get(sampled.prompt, {})) for sampled in shown]


def read_real(folder: Path) -> dict[str, dict[str, Any]]:
    """Prompt -> ``real``, the file, and its ``caption``; empty if the samples of that folder have none beside them."""
    try:
        rows = read_json(folder / REAL_LIST)
        # what lies in this folder alone goes to the page, whatever the list names
        found = [(str(row["prompt"]), inside(folder, row["file"]), str(row["caption"])) for row in rows]
        return {prompt: {"real": file, "caption": caption} for prompt, file, caption in found}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def likeness(one: str, other: str) -> float:
    """Shared words of two texts, as a part of all their words (Jaccard)."""
    words = [set(re.findall(r"\w+", text.lower())) for text in (one, other)]
    return len(words[0] & words[1]) / max(1, len(words[0] | words[1]))


def _captioned(config: PretrainConfig, vocabulary: Vocabulary) -> Iterator[tuple[str, TokenSample]]:
    """Every held-out clip, once for each of its captions."""
    for source in config.heldout:
        dataset = TokenDataset(source.path, vocabulary=vocabulary, problems=Problems())
        for index in range(len(dataset)):
            for sample in dataset.shard(index):
                yield from ((caption, sample) for caption in sample.captions)
