"""Clips sampled from the weights of a run in progress."""

import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vpoet.errors import DataError, OutputError, VpoetWarning
from vpoet.evaluate import beside
from vpoet.generate.decode import decode
from vpoet.generate.decoder import Decoding
from vpoet.generate.sampling import Sampling
from vpoet.media.video import Video
from vpoet.nn import lora
from vpoet.nn.attention import backend
from vpoet.nn.transformer import Transformer
from vpoet.sequence.arrangements import Sample
from vpoet.sequence.tasks import TABLE
from vpoet.sequence.vocabulary import Vocabulary
from vpoet.tokenizer.text import TextTokenizer
from vpoet.tokenizer.video import VideoTokenizer
from vpoet.training.recipe import PretrainConfig
from vpoet.training.run.folder import SAMPLES
from vpoet.training.run.tracking import Sampled


def sample_prompts(
    config: PretrainConfig,
    weights: dict[str, Tensor],
    vocabulary: Vocabulary,
    text: TextTokenizer,
    video: VideoTokenizer,
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
        return beside.with_real(shown, config, vocabulary, video)
    except (OSError, OutputError, DataError) as error:
        warnings.warn(f"{folder}: not all samples written: {error}; training goes on", VpoetWarning, stacklevel=2)
    return [sampled for sampled in shown if sampled.path.is_file()]
