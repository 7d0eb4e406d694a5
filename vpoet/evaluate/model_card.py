"""The model card of a bundle or a video tokenizer: the README.md of its page on a hub, and the pictures beside it.

A YAML head that the hub reads (https://huggingface.co/docs/hub/model-cards), then Markdown: the folder's own card.md,
how it is used, what it is; and of the run it came from the data, figures, curves, samples and recipe.
"""

import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from vpoet import bundle, config
from vpoet.data.shards import Manifest
from vpoet.errors import ConfigError, DataError
from vpoet.evaluate.describe import describe
from vpoet.evaluate.page.html import MEDIA, VIDEO, Listing, Part, Picture, Section, Table
from vpoet.evaluate.page.run import is_run, run_sections
from vpoet.evaluate.tables import facts_in_words, markdown
from vpoet.media.video import Video
from vpoet.tokenizer import video as video_tokenizer
from vpoet.tokenizer.families import load_settings
from vpoet.training.run.folder import METRICS, RESOLVED
from vpoet.training.run.summary import Summary
from vpoet.training.run.tracking import read_numbers

PICTURES = "pictures"
"""Their folder in the repository."""
_SHOWN_AS = {"t2v": "text-to-video", "i2v": "image-to-video", "continuation": "video-to-video", "t2i": "text-to-image"}
"""Of the hub's kinds of models, the one of the first of these tasks that it was trained for."""


@dataclass(frozen=True)
class About:
    """What a card is made from, beside the folder; ConfigError if it can't be."""

    repository: str
    run: Path | None = None
    pictures: Sequence[Path] = ()
    license: str | None = None

    def __post_init__(self) -> None:
        if self.license is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", self.license):
            raise ConfigError(f"license {self.license!r}: give the hub's short name, as apache-2.0, cc-by-4.0 or other")
        for path in self.pictures:
            if path.suffix.lower() not in {*MEDIA, *VIDEO} or not path.is_file():
                raise DataError(
                    f"{path}: no picture that a card can show; give a file of {', '.join([*MEDIA, *VIDEO])}"
                )
        if self.run is not None and not is_run(self.run):
            raise DataError(f"{self.run}: no training run, which has a {METRICS}")


def write(folder: Path, kind: str, about: About, scratch: Path) -> tuple[str, dict[str, Path]]:
    """README.md, and the pictures by their names in the repository, of a ``kind`` as `vpoet.bundle.verify` tells.

    What is drawn for it goes to ``scratch``. DataError: a run that has no step yet, or a picture that can't be read.
    """
    inner = folder / bundle.VIDEO if kind == "bundle" else folder
    theirs = str(getattr(load_settings(inner / video_tokenizer.CONFIG), "license", ""))
    own = (folder / bundle.CARD).read_text(encoding="utf-8") if (folder / bundle.CARD).is_file() else ""
    pictures: dict[str, Path] = {}
    sections = [Section("Use", [_use(kind, about.repository)]), _facts(folder)]
    if theirs:
        told = f"The video tokenizer was made by others. Its weights are under the {theirs}, which goes with each copy."
        sections.append(Section("Licence", [told]))
    if about.run is not None:
        sections += [*_data(about.run), *_of_the_run(about.run, scratch, recipe="```yaml" not in own)]
    if about.pictures:
        sections.append(Section("Pictures", [[Picture(path, path.stem) for path in about.pictures]]))
    body = "\n\n".join(_markdown(section, scratch, pictures) for section in sections)
    title = own.strip() or f"# {about.repository.rpartition('/')[2]}"
    head = yaml.safe_dump(_head(folder, kind, about, theirs), sort_keys=False, allow_unicode=True)
    return f"---\n{head}---\n{title}\n\n{body}\n", pictures


def _head(folder: Path, kind: str, about: About, theirs: str) -> dict[str, Any]:
    """What the hub sorts models by, and the figures that it shows."""
    head: dict[str, Any] = {"library_name": "vpoet"}
    if about.license or theirs:
        head["license"] = about.license or "other"
    if theirs and not about.license:
        head["license_name"] = re.sub(r"[^a-z0-9.]+", "-", theirs.lower()).strip("-")
    tags = ["vpoet", "video-tokenizer"]
    if kind == "bundle":
        tasks = config.load(folder / bundle.CONFIG, bundle.BundleConfig).tasks
        tags = ["vpoet", "video-generation", *(["world-model"] if "play" in tasks else [])]
        if fitting := [shown for task, shown in _SHOWN_AS.items() if task in tasks]:
            head["pipeline_tag"] = fitting[0]
    head["tags"] = tags
    facts = _facts_of(about.run) if about.run is not None else {}
    if (bits := facts.get("final/heldout_bits")) is not None:
        figure = {
            "task": {"type": head.get("pipeline_tag", "other")},
            "dataset": {"name": "held-out clips of the run", "type": "held-out"},
            "metrics": [{"type": "bits_per_token", "name": "bits per token", "value": round(bits, 4)}],
        }
        head["model-index"] = [{"name": about.repository.rpartition("/")[2], "results": [figure]}]
    return head


def _facts_of(run: Path) -> dict[str, float]:
    summary = Summary()
    for row in read_numbers(run / METRICS):
        summary.add(row)
    return summary.facts()


def _use(kind: str, repository: str) -> Listing:
    if kind == "bundle":
        shell = f'vpoet sample --model hf://{repository} --prompt "..." --out clip.mp4'
        python = f'vpoet.load("hf://{repository}")'
    else:
        shell = f"vpoet reconstruct clip.mp4 --tokenizer hf://{repository} --out both.mp4"
        python = f'vpoet.VideoTokenizer.load("hf://{repository}")'
    lines = [
        "pip install 'vpoet[hub]'",
        shell,
        f"vpoet pull {repository} --out DIR",
        f"python -c 'import vpoet; {python}'",
    ]
    return Listing("sh", "\n".join(lines))


def _facts(folder: Path) -> Section:
    facts = {name: value for name, value in describe(folder).items() if name != "is"}
    return Section("What it is", [Listing("text", "\n".join(facts_in_words(facts, "")))])


def _data(run: Path) -> list[Section]:
    """The sets of clips that the recipe names, with their sizes where they still lie there."""
    recipe = config.given(run / RESOLVED) if (run / RESOLVED).is_file() else {}
    data = recipe.get("data")
    trained = data.get("sources") if isinstance(data, Mapping) else data
    rows = []
    for use, sources in (("training", trained), ("held out", recipe.get("heldout") or recipe.get("held_out"))):
        for source in sources if isinstance(sources, list) else []:
            path = str(source.get("path") if isinstance(source, Mapping) else source)
            try:
                samples = f"{Manifest.load(path).samples:,}"
            except DataError:
                samples = "not there any more"
            rows.append([use, f"`{path}`", samples])
    return [Section("Data", [Table(["for", "shards", "samples"], rows)])] if rows else []


def _of_the_run(run: Path, scratch: Path, recipe: bool) -> Iterator[Section]:
    for section in run_sections(run, scratch, ".png"):
        if section.title != "Recipe" or recipe:
            yield section


def _markdown(section: Section, scratch: Path, pictures: dict[str, Path]) -> str:
    return "\n\n".join([f"## {section.title}", *(_part(part, scratch, pictures) for part in section.parts)])


def _part(part: Part, scratch: Path, pictures: dict[str, Path]) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, Listing):
        kind = "yaml" if part.name.startswith(RESOLVED) else part.name
        return f"```{kind}\n{part.text.rstrip()}\n```"
    if isinstance(part, Table):
        rows = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in part.rows]
        return markdown(list(part.header), rows, range(len(part.header)))
    shown = [f"![{picture.caption}]({_kept(picture.path, scratch, pictures)})" for picture in part]
    if len(shown) == 1:
        return shown[0]
    return markdown([picture.caption for picture in part], [shown], range(len(part)))


def _kept(path: Path, scratch: Path, pictures: dict[str, Path]) -> str:
    """The name in the repository of a picture that goes with it: films as GIFs, which every card shows."""
    stem, suffix = re.sub(r"[^\w.-]+", "-", path.stem)[:80], path.suffix.lower()
    name = f"{PICTURES}/{len(pictures):02}-{stem}{'.gif' if suffix in VIDEO else suffix}"
    copy = scratch / f"card-{Path(name).name}"
    if suffix in VIDEO:
        Video.read(path).write(copy)
    else:
        shutil.copyfile(path, copy)
    pictures[name] = copy
    return name
