"""What a thing that vpoet made, or reads, is: recipes, shards, tokenizers, bundles and runs, as plain facts."""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from vpoet import bundle, config, hub
from vpoet.data import recordings, segments
from vpoet.data.npy import npy_to_codes
from vpoet.data.shards import MANIFEST, Manifest, Problems, read_shard
from vpoet.data.token_stream import heldout_packs
from vpoet.errors import ConfigError, DataError
from vpoet.nn.transformer import Transformer
from vpoet.nn.visibility import Visibility
from vpoet.sequence.conditions import Learnt
from vpoet.sequence.tasks import TABLE, servable
from vpoet.sequence.vocabulary import Vocabulary
from vpoet.tokenizer import video
from vpoet.tokenizer.autoencoder import AutoencoderConfig
from vpoet.tokenizer.families import IMPORTED, build, load_settings
from vpoet.tokenizer.text import TextTokenizer
from vpoet.tokenizer.video import VideoTokenizer
from vpoet.training.codec.recipe import VideoTokenizerRecipe
from vpoet.training.recipe import PretrainConfig
from vpoet.training.run import checkpoint
from vpoet.training.run.folder import METRICS, RESOLVED, TOKENIZER
from vpoet.training.run.tracking import read_numbers

Facts = dict[str, Any]
"""Name to number, text, list or further facts; the first entry, ``is``, says what the thing is."""

RECIPES: dict[type[Any], str] = {
    PretrainConfig: "pretraining recipe",
    VideoTokenizerRecipe: "video tokenizer recipe",
    AutoencoderConfig: "video tokenizer's config",
    **dict.fromkeys(IMPORTED.values(), "imported video tokenizer's config"),
}


def describe(path: str | Path) -> Facts:
    """The facts of a file or folder, or of a bundle or tokenizer of a hub, by what lies in it; DataError if it is
    nothing that vpoet knows."""
    path = hub.local(path, bundle.FILES)
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    kinds: list[tuple[bool, Callable[[Path], Facts]]] = [
        (path.suffix in (".yaml", ".yml"), describe_recipe),
        (path.suffix == ".tar", describe_shard),
        (path.suffix == ".model", describe_text_tokenizer),
        ((path / MANIFEST).is_file(), describe_shards),
        ((path / bundle.TEXT).is_file() or (path / bundle.VIDEO).is_dir(), describe_bundle),
        ((path / video.WEIGHTS).is_file(), describe_video_tokenizer),
        ((path / RESOLVED).is_file(), describe_run),
    ]
    for found, describer in kinds:
        if found:
            return describer(path)
    if sides := sorted(str(manifest.parent) for manifest in path.glob(f"*/{MANIFEST}")):
        raise DataError(f"{path}: folders of shards lie in it; look at one of them: {', '.join(sides)}")
    raise DataError(
        f"{path}: nothing that vpoet knows: not a recipe (.yaml), a shard (.tar), a text tokenizer (.model), or a "
        f"folder of shards ({MANIFEST}), a tokenizer ({video.WEIGHTS}), a bundle or a run ({RESOLVED})"
    )


def load_recipe(path: Path) -> Any:
    """A recipe of whichever kind its keys fit best; ConfigError from that kind's reading."""
    keys = set(config.given(path))
    known = {schema: keys & {field.name for field in fields(schema)} for schema in RECIPES}
    best = max(RECIPES, key=lambda schema: (len(known[schema]), -len(fields(schema))))
    if not known[best]:
        raise ConfigError(f"{path}: its keys are those of no config: {', '.join(RECIPES.values())}")
    return config.load(path, best)


def describe_recipe(path: Path) -> Facts:
    recipe = load_recipe(path)
    if isinstance(recipe, PretrainConfig):
        return _pretraining(recipe)
    if isinstance(recipe, VideoTokenizerRecipe):
        size = (recipe.frames, recipe.height, recipe.width)
        steps = {"steps": recipe.steps, "clips a step": recipe.batch, "clips in all": recipe.steps * recipe.batch}
        return {"is": RECIPES[VideoTokenizerRecipe], "run": recipe.run} | _network(recipe.model, size) | steps
    return {"is": RECIPES[type(recipe)]} | _network(recipe)


def describe_shard(path: Path) -> Facts:
    """Everything in one shard is read and checked."""
    problems = Problems()
    samples = captioned = captions = keyed = painted = 0
    special: Counter[str] = Counter()
    seconds = 0.0
    sizes: Counter[str] = Counter()
    codes: set[int] = set()
    made_by: set[str] = set()
    listed: dict[str, Counter[str]] = {name: Counter() for name in ("license", "label")}
    for sample in read_shard(path, problems=problems):
        about = sample.json
        texts = sample.captions
        captioned += bool(texts)
        captions += len(texts)
        frames, fps = about.get("frames"), about.get("fps")
        if isinstance(frames, int) and isinstance(fps, int | float) and fps > 0:
            seconds += frames / fps
        try:
            acts = "actions.npy" in sample.parts or recordings.action_space(about) is not None
            changes = recordings.changes(about) is not None
        except DataError as error:
            problems.add(str(error), sample.key)
            continue
        special["with actions"] += acts
        special["with captions in time"] += changes
        special.update(f"with control {name.split('.')[1]}" for name in sample.parts if name.startswith("control."))
        special["of segments"] += segments.interleaves(about, sample.parts)
        if grids := [name for name in sample.parts if name.endswith("codes.npy")]:
            try:
                arrays = [npy_to_codes(sample.parts[name]) for name in grids]
            except DataError:
                problems.add("broken codes", sample.key)
                continue
            sizes.update("x".join(map(str, array.shape)) for array in arrays)
            codes.update(code for array in arrays for code in array.ravel().tolist())
            keyed += "keyframes.npy" in sample.parts
            painted += "painting-0.npz" in sample.parts
            made_by.add(str(about.get("tokenizer")))
        else:
            sizes["x".join(str(about.get(name, "?")) for name in ("frames", "height", "width"))] += 1
        for name, counter in listed.items():
            if about.get(name) not in (None, ""):
                counter[str(about[name])] += 1
        samples += 1
    facts: Facts = {
        "is": "token shard" if codes else "raw shard",
        "samples": samples,
        "bytes": path.stat().st_size,
        "seconds of video": round(seconds, 3),
        "with captions": captioned,
        "captions": captions,
        "grids (cells)" if codes else "sizes (frames, pixels)": dict(sizes.most_common(8)),
    }
    if codes:
        facts |= {"tokenizer": sorted(made_by), "different codes": len(codes), "largest code": max(codes)}
        facts |= {"with keyframes": keyed, "with paintings": painted}
    facts |= {name: count for name, count in special.items() if count}
    facts |= {name: dict(counter.most_common(8)) for name, counter in listed.items() if counter}
    return facts | ({"skipped": str(problems)} if problems.total else {})


def describe_shards(folder: Path) -> Facts:
    """The manifest against what is there; the first shard in full, as a sample of the rest."""
    manifest = Manifest.load(folder)
    present = {shard.name: folder / shard.name for shard in manifest.shards if (folder / shard.name).is_file()}
    facts: Facts = {
        "is": f"folder of {'token' if manifest.kind == 'tokens' else manifest.kind} shards",
        "shards": len(manifest.shards),
        "samples": manifest.samples,
        "bytes": manifest.bytes,
    }
    if manifest.tokenizer:
        facts["tokenizer"] = manifest.tokenizer
    if manifest.actions:
        facts["actions"] = manifest.actions.told()
    if missing := [shard.name for shard in manifest.shards if shard.name not in present]:
        facts["missing shards"] = missing
    if cut := [s.name for s in manifest.shards if s.name in present and present[s.name].stat().st_size != s.bytes]:
        facts["shards of another size than listed"] = cut
    for name, path in list(present.items())[:1]:
        facts[f"first shard, {name}"] = describe_shard(path)
    return facts


def describe_text_tokenizer(path: Path) -> Facts:
    text = TextTokenizer.load(path)
    return {"is": "text tokenizer", "pieces": text.size, "hash": text.hash}


def describe_video_tokenizer(folder: Path) -> Facts:
    tokenizer = VideoTokenizer.load(folder)
    return {"is": "video tokenizer", "hash": tokenizer.hash} | _network(tokenizer.model.config)


def _condition(learnt: Learnt) -> str:
    """What a model may be asked for, by `vpoet sample --NAME`."""
    met = f", from {learnt.about(learnt.met[0])} to {learnt.about(learnt.met[-1])}" if learnt.met else ""
    return f"{learnt.measure} of `vpoet measure`{met}"


def describe_bundle(folder: Path) -> Facts:
    """DataError or CheckpointError if a part is missing or does not belong."""
    whole = bundle.load(folder)
    about = whole.config
    sampled = {row.name: f"{row.flag}: {row.meaning}" for row in servable(about.tasks) if row.flag}
    return {
        "is": "bundle",
        "hash": whole.hash,
        "bytes": sum(part.stat().st_size for part in folder.rglob("*") if part.is_file()),
        "tasks": list(about.tasks),
        **({"with `vpoet sample`": sampled} if any(TABLE[task].flag for task in about.tasks) else {}),
        "clip (frames, pixels, fps)": f"{about.frames}x{about.height}x{about.width} at {about.fps}",
        "tokens at most": about.length,
        "attention": ("prefix both ways" if about.bidirectional else "causal")
        + (f", a window of {about.window} frames" if about.window else ""),
        **({"actions": about.actions.told()} if about.actions else {}),
        **(
            {"conditions": {name: _condition(learnt) for name, learnt in about.conditions.items()}}
            if about.conditions
            else {}
        ),
        **({"controls": about.model.controls} if about.model.controls else {}),
        **_vocabulary(whole.transformer.vocabulary),
        **_transformer(whole.transformer, about.length),
        "video tokenizer": _network(load_settings(folder / bundle.VIDEO / video.CONFIG)),
    }


def describe_run(folder: Path) -> Facts:
    """Where a run stands: its checkpoints, its last measurements, and its recipe."""
    recipe = describe_recipe(folder / RESOLVED)
    facts: Facts = {"is": f"run folder of a {recipe['is']}"}
    if recipe["is"] == RECIPES[PretrainConfig]:
        facts["whole checkpoints"] = [path.name for path in checkpoint.complete(folder)]
    else:
        facts["tokenizer"] = "finished" if (folder / TOKENIZER).is_dir() else "not finished"
    if (folder / METRICS).is_file() and (rows := read_numbers(folder / METRICS)):
        facts["last measurements"] = {name: value for name, value in rows[-1].items() if name != "time"}
    return facts | {"recipe": recipe}


def _pretraining(recipe: PretrainConfig) -> Facts:
    """Counts of the whole model where its tokenizers are there, else of its blocks, which know no vocabulary."""
    facts: Facts = {"is": RECIPES[PretrainConfig], "run": recipe.run, "tasks": dict(recipe.data.tasks)}
    sources = [source.path for source in [*recipe.data.sources, *recipe.heldout]]
    there = [path for path in sources if (Path(path) / MANIFEST).is_file()]
    facts |= {path: f"{Manifest.load(path).samples} samples" if path in there else "not there yet" for path in sources}
    tokens = recipe.batch * recipe.data.length
    facts |= {"tokens a step": tokens, "steps": recipe.steps, "tokens in all": recipe.steps * tokens}
    if not (Path(recipe.text).is_file() and Path(recipe.video).is_dir()):
        facts["note"] = "the tokenizers are not there yet: embeddings and heads are not counted"
        blocks = _model(recipe, Vocabulary(1, (2,) * recipe.model.visual_groups, "", "")).blocks
        return facts | {"parameters in blocks": sum(parameter.numel() for parameter in blocks.parameters())}
    _, vocabulary = tokenizers(recipe)
    facts |= _vocabulary(vocabulary) | _transformer(_model(recipe, vocabulary), recipe.data.length)
    if there == sources:
        facts["of the data"] = of_the_data(recipe)
    return facts


def of_the_data(recipe: PretrainConfig, packs: int = 8) -> Facts:
    """What the first packs of a recipe's own data hold, and the FLOPs of its run if all are like them."""
    text, vocabulary = tokenizers(recipe)
    transformer = _model(recipe, vocabulary)
    rows = heldout_packs(recipe.data, vocabulary=vocabulary, text=text.encode, count=packs)
    total = sum(map(len, rows))
    flops = sum(transformer.flops(Visibility.of(row), int(row.targets.sum())) for row in rows)
    return {
        "packs": len(rows),
        "documents a pack": sum(len(row.lengths) - bool(row.padding) for row in rows) / len(rows),
        "share predicted": sum(int(row.targets.sum()) for row in rows) / total,
        "share of padding": sum(row.padding for row in rows) / total,
        "FLOPs per token": flops / total,
        "FLOPs in all": flops / total * recipe.steps * recipe.batch * recipe.data.length,
    }


def tokenizers(recipe: PretrainConfig) -> tuple[TextTokenizer, Vocabulary]:
    """A recipe's text tokenizer, and the vocabulary that its two tokenizers make."""
    text, codes = TextTokenizer.load(recipe.text), VideoTokenizer.load(recipe.video)
    return text, recipe.vocabulary(text, codes)


def _model(recipe: PretrainConfig, vocabulary: Vocabulary) -> Transformer:
    """To be counted: it has shapes and no memory."""
    with torch.device("meta"):
        return Transformer(recipe.model, vocabulary)


def _vocabulary(vocabulary: Vocabulary) -> Facts:
    groups = " * ".join(map(str, vocabulary.visual))
    return {
        "vocabulary": vocabulary.hash,
        "text pieces": f"{vocabulary.text} (tokenizer {vocabulary.text_hash})",
        "visual codes": f"{vocabulary.codes} = {groups} (tokenizer {vocabulary.visual_hash})",
    }


def _transformer(transformer: Transformer, length: int) -> Facts:
    """Counts; the FLOPs are those of one document as long as a pack with only visual targets, forward and backward."""
    parameters = transformer.parameter_count
    return {
        "parameters": parameters,
        "of these in blocks": sum(parameter.numel() for parameter in transformer.blocks.parameters()),
        "FLOPs per token at most": transformer.flops(Visibility((length,), (0,)), length) / length,
        "bytes of weights, gradients and AdamW in fp32": 16 * parameters,
    }


def _network(settings: Any, size: tuple[int, int, int] | None = None) -> Facts:
    """Of a video tokenizer's config. ``size``: frames, height, width of a clip to count by; else a small one."""
    with torch.device("meta"):
        model = build(settings)
        r, s, _ = model.stride
        frames, height, width = size or ((1 if model.causal else r) + 4 * r, 16 * s, 16 * s)
        clip = torch.empty(1, 3, frames, height, width)
        with FlopCounterMode(display=False) as encoding:
            cells = model.vectors(clip)
        with FlopCounterMode(display=False) as decoding:
            model.draw(cells)
    _, t, h, w, _ = cells.shape
    codebook = model.quantiser.size
    bits = math.log2(codebook)

    def count(part: str) -> int:
        return sum(parameter.numel() for parameter in model.get_submodule(part).parameters())

    return {
        **({"license": settings.license} if type(settings) in IMPORTED.values() else {}),
        "stride": "x".join(map(str, model.stride)),
        "codebook": f"{codebook} = {' * '.join(map(str, model.quantiser.levels))}",
        "bits a code": bits,
        "parameters": {part: count(part) for part in ("encoder", "decoder")},
        "clip (frames, pixels)": f"{frames}x{height}x{width}",
        "codes of a clip": f"{t * h * w} = {t}x{h}x{w}",
        "bits a pixel": bits * t * h * w / (frames * height * width),
        "FLOPs per code": {
            "encode": encoding.get_total_flops() / (t * h * w),
            "decode": decoding.get_total_flops() / (t * h * w),
        },
    }
