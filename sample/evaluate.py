"""Judge a bundle on the platformer world: prompts followed, nearness to real clips, copies."""

import json as json_module
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import track

from vpoet import cli
from vpoet.arrays import Frames
from vpoet.bundle import SHIPPED
from vpoet.evaluate.adherence import Prompt, captions, judge, prompts, shares, stating, table, wrong
from vpoet.evaluate.distances import NAME, clip_features, frechet, nearest
from vpoet.evaluate.intervals import mean_interval
from vpoet.files import write_atomic
from vpoet.generate.model import Model, Request, load
from vpoet.generate.prompt_file import record
from vpoet.generate.sampling import Sampling
from vpoet.media.sheet import contact_sheet
from vpoet.media.video import Video
from vpoet.nn.features import EfficientNetLite0
from vpoet.outputs import expect_folder
from vpoet.worlds.platformer.sight import Witness

SHEET_ROWS = 16
NEAR = 5  # percentile of held-out clips' distances to training: a sample below it counts as near
console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)


def main(
    prompt_sets: Annotated[
        list[Path],
        typer.Option("--prompts", metavar="RAW", help="Raw shards of world:platformer not trained on. Repeatable."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for samples, tables and pictures; sampling goes on from there.")],
    model: Annotated[Path, typer.Option(help="Bundle folder. The default ships.", show_default=False)] = SHIPPED,
    count: Annotated[int, typer.Option(help="Prompts of each set at most.", min=2)] = 100,
    apart: Annotated[
        list[str] | None, typer.Option(metavar="NAME=V,NAME=V", help="Also count prompts with these apart. Repeatable.")
    ] = None,
    cfg: Annotated[list[float] | None, typer.Option(help="Guidance; several in turn. [default: the model's]")] = None,
    temperature: Annotated[list[float] | None, typer.Option(help="Likewise. [default: the model's]")] = None,
    top_p: Annotated[list[float], typer.Option(help="Likewise.")] = [1.0],  # noqa: B006
    train: Annotated[
        Path | None, typer.Option(metavar="RAW", help="What it was trained on: no prompt is of it; to look for copies.")
    ] = None,
    distance: Annotated[
        bool, typer.Option("--distance", help=f"{NAME} to real clips: pip install vpoet[perceptual].")
    ] = False,
    seed: Annotated[int, typer.Option(help="Prompt number i is sampled with seed SEED + i.", min=0)] = 0,
    batch_size: Annotated[int, typer.Option(help="Clips that are decoded together.", min=1)] = 16,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="End with one line of JSON on standard output.")] = False,
) -> None:
    """Judge a bundle on the platformer world, without a judge: the world's truth is known.

    Each clip of the given shards lends its caption as a prompt. What a sample shows is found by matching it against all
    that the world can draw, and counted where the prompt states it; a creature unasked is wrong, and so are faults: of
    order, presence in every frame, opacity, a second figure. The real clips are judged too, as they are and through the
    bundle's tokenizer: no sampler can be measured better. Shares are in percent, with 95% intervals (Wilson). What
    prompts say to the model is also counted in bits: those that a real clip costs more under the prompt of another.

    Give several values of --cfg, --temperature or --top-p for a table of all their combinations. Samples are kept in
    OUT/samples.jsonl: an interrupted evaluation goes on where it was.

    Examples:

        vpoet evaluate --prompts runs/platformer/raw/heldout --prompts runs/platformer/raw/unseen \\
            --train runs/platformer/raw/train --distance --out runs/judged

        vpoet evaluate --prompts raw/unseen --apart who=zombie,ground=snow --apart who=robot,action=climb --out o

        vpoet evaluate --model B --prompts raw/heldout --cfg 1 --cfg 2 --cfg 4 --temperature 0.9 --temperature 1 --out o
    """
    expect_folder(out)
    sampler = load(model, device)
    config = sampler.bundle.config
    known = captions(train) if train else frozenset()
    sets = {folder.name: prompts(folder, count, known) for folder in prompt_sets}
    asked = [prompt for group in sets.values() for prompt in group]
    ends = np.cumsum([len(group) for group in sets.values()])
    parts = {label: list(range(end - len(sets[label]), end)) for label, end in zip(sets, ends, strict=True)}
    parts |= {given: stating(asked, given) for given in apart or []}
    witness = Witness(config.height, config.width, float(config.fps))
    network = EfficientNetLite0() if distance else None
    cli.hold(out)

    real = [prompt.real for prompt in asked]
    coder = sampler.bundle.video
    drawn = [coder.decode(coder.encode(Video(clip, prompt.fps))) for clip, prompt in zip(real, asked, strict=True)]
    rows: dict[str, Any] = {}
    first = clip_features(network, real[0::2]) if network else {}
    reference = nearest(drawn, train)[0] if train else None

    def judge_all(name: str, clips: list[Frames]) -> list[dict[str, str]]:
        """Everything about one set of clips, into ``rows``."""
        seen = [judge(witness, clip) for clip in track(clips, f"seeing {name}", console=console)]
        row = rows[name] = {"following": {}}
        for label, part in parts.items():
            row["following"][label] = shares([asked[i].stated for i in part], [seen[i] for i in part])
        if network:
            # halves of the prompts: no clip is compared with its own original
            second = clip_features(network, clips[1::2])
            row["distance"] = {what: frechet(first[what], second[what]) for what in first}
        return seen

    judge_all("real clips", real)
    judge_all("real clips, through the tokenizer", drawn)
    bits = [sampler.score(Video(p.real, p.fps), p.text) for p in asked]
    other = [sampler.score(Video(p.real, p.fps), asked[i - 1].text) for i, p in enumerate(asked)]
    costs = [foreign.total.bits - own.total.bits for foreign, own in zip(other, bits, strict=True)]
    bits_per_token = {
        label: float(sum(bits[i].total.bits for i in part) / sum(bits[i].tokens for i in part))
        for label, part in parts.items()
    }
    other_prompt = {label: mean_interval([costs[i] for i in part]) for label, part in parts.items()}
    tried = product(cfg or [config.guidance], temperature or [config.temperature], top_p)
    settings = [Sampling(guidance=g, temperature=t, top_p=p) for g, t, p in tried]
    for sampling in settings:
        name = f"cfg {sampling.guidance:g}, temperature {sampling.temperature:g}, top-p {sampling.top_p:g}"
        clips = sample(sampler, asked, sampling, seed, batch_size, out / "samples.jsonl", name)
        seen = judge_all(name, clips)
        for label, part in parts.items():
            sheet = [(mark(asked[i], seen[i]), clips[i]) for i in part[:SHEET_ROWS]]
            contact_sheet(sheet, max_frames=9, scale=2).save(out / f"{label}, {name}.png".replace(" ", "-"))
        if train and reference is not None:
            distances, keys = nearest(clips, train)
            near, closest = np.percentile(reference, NEAR), int(distances.argmin())
            rows[name]["nearest"] = {
                "median": float(np.median(distances)),
                "least": float(distances[closest]),
                "least_pair": [asked[closest].key, keys[closest]],
                "nearer_than_5_percent_of_held_out": float((distances < near).mean()),
                "median_of_held_out": float(np.median(reference)),
                "least_of_held_out": float(reference.min()),
            }

    lines = []
    for label, part in parts.items():
        more, half = other_prompt[label]
        lines += [f"\n{label}: {len(part)} prompts, {bits_per_token[label]:.3f} bits a token of real clips, and under"]
        lines += [f"another clip's prompt {more:.1f} (± {half:.1f}) bits a clip more\n"]
        lines += [table({name: row["following"][label] for name, row in rows.items()})]
    for name, row in rows.items():
        if "distance" in row:
            values = ", ".join(f"{what} {value:.4g}" for what, value in row["distance"].items())
            lines += [
                f"\n{NAME}, {len(real) // 2} clips, {name}{' (the floor)' if name == 'real clips' else ''}: {values}"
            ]
        if "nearest" in row:
            figures = ", ".join(f"{what.replace('_', ' ')} {value}" for what, value in row["nearest"].items())
            lines += [f"\nnearest training clips, {name}: {figures}"]
    write_atomic(out / "results.md", ("\n".join(lines).strip() + "\n").encode())
    write_atomic(out / "results.json", json_module.dumps(rows, indent=1).encode())
    console.print("\n".join(lines))
    told = {"bits_per_token": bits_per_token, "other_prompt": other_prompt, "sets": rows, "out": out}
    cli.finish({"model": sampler.bundle.hash} | told, json)


def sample(
    sampler: Model, asked: list[Prompt], sampling: Sampling, seed: int, batch_size: int, file: Path, name: str
) -> list[Frames]:
    """A clip for each prompt, those that the file holds already among them; new ones are appended, batch by batch."""
    requests = [Request(prompt=prompt.text, seed=seed + i) for i, prompt in enumerate(asked)]
    made = [json_module.dumps(record(request, sampling, sampler), sort_keys=True) for request in requests]
    codes: dict[str, Any] = {}
    for line in file.read_text().splitlines() if file.exists() else []:
        try:
            kept = json_module.loads(line)
            codes[kept["made"]] = kept["codes"]
        except (ValueError, TypeError, KeyError):  # cut short when its process ended
            continue
    todo = [i for i, key in enumerate(made) if key not in codes]
    groups = [todo[start : start + batch_size] for start in range(0, len(todo), batch_size)]
    with file.open("a") as lines:
        for group in track(groups, f"sampling {name}", console=console, disable=not groups):
            documents = [sampler.document(requests[i]) for i in group]
            decoded = sampler.decode(documents, [requests[i].seed for i in group], sampling)
            lines.write("\n")
            for i, result in zip(group, decoded, strict=True):
                codes[made[i]] = result.document.codes().tolist()
                lines.write(json_module.dumps({"made": made[i], "codes": codes[made[i]]}) + "\n")
            lines.flush()
    return [sampler.bundle.video.decode(np.array(codes[key], np.int32)) for key in made]


def mark(prompt: Prompt, seen: dict[str, str]) -> str:
    """The prompt, and what is wrong about its clip."""
    found = [f"{name}: {value or 'none'}" for name, value in wrong(prompt.stated, seen).items()]
    return f"[{'WRONG' if found else 'right'}] {prompt.text}{' -> ' if found else ''}{', '.join(found)}"


if __name__ == "__main__":
    cli.run(main)
