"""The plan of a chain: sizes and steps with which it ends in the hours, as plain commands.

reading, selecting, encoding        a third of the hours at most, else fewer sources
the video tokenizer                 a third of what is left, if one is trained
the transformer                     the rest
"""

from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

from vpoet.data.clips import ClipSettings
from vpoet.errors import ConfigError
from vpoet.evaluate.chain import sizes
from vpoet.evaluate.chain.sources import Sources
from vpoet.evaluate.chain.stages import PRETRAIN, Plan, Stage
from vpoet.evaluate.chain.trial import Rates
from vpoet.tokenizer.video import SHIPPED

LONGEST = 10_000.0
"""Hours."""
AIM = 0.92
"""Of the hours, for what is planned: what is measured beforehand is not all that happens."""
DATA, TOKENIZER = 0.33, 0.33
"""Of the hours, for data at most; of the time for training, for the video tokenizer."""
EPOCHS = 400
"""Times that a clip is seen at most: the hours that are left then are not needed."""
LEAST = 20
"""Steps of a training: fewer make nothing to look at."""
SCORED, HELD_PACKS, EVALUATIONS = 32, 8, 4
"""Clips and packs that an evaluation looks at, and evaluations on the way."""
SAVED, LOGGED = 90, 15
"""Seconds of work that a kill can cost, and between two lines that tell of progress."""
TRAINS = {"train-video": "tokenizers/train_video.py", PRETRAIN: "train/pretrain.py"}
"""What a launcher starts."""
LAUNCH, SAMPLING = 30.0, 20.0
"""Seconds that DeepSpeed's launcher needs until its processes train, and that sampling a few clips takes."""


@dataclass(frozen=True)
class Asked:
    """What the user says, in so far as the plan depends on it."""

    sources: list[str]
    hours: float
    tokenizer: str
    """A folder; "": one is trained."""
    clips: int | None
    prompts: list[str]
    where: str
    dedupe: float
    processes: int | None
    """None: as many as there are GPUs or cores."""

    def __post_init__(self) -> None:
        if not 0 < self.hours <= LONGEST:
            raise ConfigError(f"--hours is above 0 and at most {LONGEST:g}, not {self.hours:g}")

    def told(self) -> dict[str, Any]:
        """By the names of the options, as it is kept with the plan."""
        return vars(self)


@dataclass(frozen=True)
class Machine:
    """What there is to work with, and how fast it was found to be."""

    cores: int
    processes: int
    """That train together, under the launcher if they are several."""
    cuda: bool
    """Whether they have GPUs."""
    start: float
    """Seconds until a command has begun to work."""
    read: float
    """Seconds of one process for each clip: to read it from its source, ..."""
    measured: tuple[float, float]
    """... to measure it for selection, with an embedding and without (0: that cannot be done), ..."""
    rates: Rates
    """... and to encode and train on it."""
    planning: float = 0.0
    """Seconds that finding all this out took."""


@dataclass
class Planner:
    """Plans a chain; what it decides, it notes."""

    asked: Asked
    sources: Sources
    clips: int
    """That the sources give."""
    settings: ClipSettings
    out: Path
    machine: Machine

    def __post_init__(self) -> None:
        self.own = self.sources.clips is None
        self.notes = list(self.sources.notes)
        self.measuring = ""
        """With what clips are measured for selection: pictures, or hashes alone; "": they are not."""
        self._choose_data()
        self.share = self.sources.holdout(self.out)
        if not self.share:
            told = "nothing, as the sources are too few: what it learns of others is not measured"
            self.notes.append(f"held out: {told}")

    def plan(self) -> Plan:
        """ConfigError: in so few hours nothing can be learnt."""
        rates, machine = self.machine.rates, self.machine
        launch = machine.start + (LAUNCH if machine.processes > 1 else 0)
        video = self.asked.tokenizer
        before, after = self._data(), self._end()
        rest = sum(stage.seconds for stage in (*before, *self._coded(video), *after)) + launch
        left = AIM * self.asked.hours * 3600 - machine.planning - rest
        training: list[Stage] = []
        if not video:
            step, scoring = min(rates.video.values()), 24 * SCORED * rates.encode
            most = ceil(EPOCHS * self.clips / 8)
            steps = min(int((TOKENIZER * left - launch - scoring) / step), most)
            if steps < LEAST and self.own:
                self.notes.append("video tokenizer: the one that ships, as there is no time to train it on your clips")
                video = str(SHIPPED)
            else:
                training = [self._tokenizer(max(steps, 1), launch + steps * step + scoring, most)]
                left -= training[0].seconds
        learnt = self.clips * (1 - self.share)
        sized = sizes.transformer(self.own, left, learnt, rates, machine.processes)
        evaluating = EVALUATIONS * HELD_PACKS * sized.step / sized.config.batch / 2
        steps = int((left - evaluating) / sized.step)
        most = ceil(EPOCHS * learnt * sizes.document(rates) / sized.tokens)
        if steps < LEAST:
            lacking = (LEAST * sized.step + evaluating - left) / (1 - TOKENIZER * (not video))
            hours = self.asked.hours + 1.1 * lacking / AIM / 3600
            raise ConfigError(
                f"--hours {self.asked.hours:g}: all but training takes {rest / 60:.0f} minutes here; "
                f"give --hours {hours:.2g} or more"
            )
        if steps > most:
            self.notes.append(
                f"it ends before the {self.asked.hours:g} hours: each clip is seen {EPOCHS} times by then"
            )
        steps = min(steps, most)
        pretrain = self._pretrain(sized, steps, video, launch + steps * sized.step + evaluating, most)
        stages = [*before, *training, *self._coded(video), pretrain, *after]
        return Plan(self.asked.told(), self.asked.hours, stages, machine.cores, machine.planning, self.notes)

    def _choose_data(self) -> None:
        """How clips are selected, and how many of the sources there is time for."""
        machine, room = self.machine, DATA * self.asked.hours * 3600
        one = machine.read / machine.cores + 1.1 * machine.rates.encode
        whole, hashes = (seconds / machine.cores for seconds in machine.measured)
        if self.own and not hashes:
            self.notes.append('selection: none, as its packages are not there: pip install "vpoet[curate]"')
        elif self.own and self.clips * (one + whole) <= room:
            self.measuring, one = "pictures", one + whole
        elif self.own and self.clips * (one + hashes) <= room:
            self.measuring, one = "hashes", one + hashes
            self.notes.append("selection: without embeddings, for want of time: copies that are cropped are not found")
        elif self.own:
            self.notes.append("selection: none, as there is no time to measure so many clips")
        if self.clips * one > room:
            sources = len(self.sources.items)
            count = max(4, int(sources * room / (self.clips * one)))
            if count < sources:
                self.notes.append(f"sources: {count} of {sources}, as there is no time for all")
                self.clips = max(1, self.clips * count // sources)
                self.sources = self.sources.fewer(count)

    @property
    def _raw(self) -> Path:
        return self.out / "raw" / "train" if self.share else self.out / "raw"

    @property
    def _clips(self) -> Path:
        return self.out / "selected" if self.measuring else self._raw

    @property
    def _held(self) -> Path:
        """What is scored on: what is trained on, if nothing is held out."""
        return self.out / "raw" / "heldout" if self.share else self._clips

    def _data(self) -> list[Stage]:
        machine, settings, learnt = self.machine, self.settings, round(self.clips * (1 - self.share))
        start, cores = machine.start, machine.cores
        cuts = ["--cuts", settings.cuts, "--min-shot", str(settings.frames)] if settings.cuts else []
        made = [] if self.own else ["--clips", str(self.sources.clips)]
        size = [f"--frames={settings.frames}", f"--fps={settings.fps:g}", f"--height={settings.height}",
                f"--width={settings.width}", *([f"--stride={settings.stride}"] if settings.stride else [])]  # fmt: skip
        held = ["--holdout", f"{self.share:g}"] if self.share else []
        words = [*self.sources.given(self.out), *made, *cuts, *size, *held, "--workers", str(cores)]
        about = f"clips of {settings.frames} frames of {settings.height}x{settings.width} at {settings.fps:g} fps"
        verb = "cut" if self.own else "draw"
        stages = [
            Stage("ingest" if self.own else "world", f"{verb} about {self.clips:,} {about}", str(self.out / "raw"),
                  ["vpoet", "ingest", *words, "--out", str(self.out / "raw")],
                  start * (1 + 0.5 * (cores > 1)) + self.clips * machine.read / cores)
        ]  # fmt: skip
        if self.measuring:
            each = machine.measured[0 if self.measuring == "pictures" else 1] / cores
            plain = [] if self.measuring == "pictures" else ["--no-embedding"]
            stages += [
                Stage("measure", "measure what the clips are like", str(self._raw / "measures"),
                      ["vpoet", "measure", str(self._raw), *plain, "--workers", str(cores)],
                      start * (1 + 0.5 * (cores > 1)) + learnt * each),
                Stage("select", "leave out copies and what shows nothing", str(self._clips / "select.html"),
                      ["vpoet", "select", str(self._raw), "--where", self.asked.where, "--dedupe",
                       f"{self.asked.dedupe:g}", "--out", str(self._clips)],
                      start + 0.01 * learnt),
            ]  # fmt: skip
        text = str(self.out / "text.model")
        learn = ["vpoet", "train-text", str(self._clips), "--out", text, "--size", str(self.sources.pieces)]
        seconds = start + 0.001 * learnt
        return [*stages, Stage("train-text", "learn text pieces from the captions", text, learn, seconds)]

    def _coded(self, video: str) -> list[Stage]:
        """What comes between the two trainings."""
        video, start, encode = (
            video or str(self.out / "video" / "tokenizer"),
            self.machine.start,
            self.machine.rates.encode,
        )
        sheet = str(self.out / "reconstructions.png")
        sides = {"train": (self._clips, 1 - self.share)} | ({"heldout": (self._held, self.share)} if self.share else {})
        return [
            Stage("evaluate-tokenizer", f"look at the tokenizer on {'held-out ' * bool(self.share)}clips", sheet,
                  ["vpoet", "evaluate-tokenizer", video, str(self._held), "--clips", str(SCORED), "--sheet", sheet],
                  start + 6 * SCORED * encode),
            *(
                Stage(f"encode-{side}", f"turn the {side} clips into tokens", str(self.out / "tokens" / side),
                      ["vpoet", "encode", str(raw), "--tokenizer", video, "--out", str(self.out / "tokens" / side),
                       *(["--device", "cuda"] if self.machine.cuda else [])],
                      start + self.clips * share * 1.1 * encode)
                for side, (raw, share) in sides.items()
            ),
        ]  # fmt: skip

    def _tokenizer(self, steps: int, seconds: float, most: int) -> Stage:
        rates = self.machine.rates.video
        path, changes = sizes.tokenizer(self.own)
        recipe, precision = sizes.tried_tokenizer(self.own), min(rates, key=lambda name: rates[name])
        words = [
            f"run={self.out / 'video'}", f"data=[{self._clips}]", f"held_out=[{self._held if self.share else ''}]",
            *changes, f"dtype={precision}", f"steps={steps}", f"ema={min(recipe.ema, max(0.5, 1 - 7 / steps)):.4g}",
            f"optimizer.warmup={min(recipe.optimizer.warmup, max(1, steps // 10))}",
            f"evaluate_every={ceil(steps / 2)}", f"evaluate_clips={SCORED}",
            *_paced(rates[precision]),
        ]  # fmt: skip
        what = (
            f"{'train the tokenizer that ships on your clips' if self.own else 'learn the video tokenizer'}: {steps:,} "
        )
        what += f"steps of {recipe.batch} clips, {precision}{self._together}"
        result = str(self.out / "video" / "tokenizer")
        return Stage("train-video", what, result, self._launched("train-video", [str(path), *words]), seconds, most)

    def _pretrain(self, sized: sizes.Sized, steps: int, video: str, seconds: float, most: int) -> Stage:
        clips = max(1, round(sized.tokens / sizes.document(self.machine.rates)))
        held = f"[{{path: {self.out / 'tokens' / 'heldout'}}}]" if self.share else "[]"
        words = [
            f"run={self.out / 'pretrain'}", f"text={self.out / 'text.model'}",
            f"video={video or self.out / 'video' / 'tokenizer'}",
            f"data.sources=[{{path: {self.out / 'tokens' / 'train'}}}]", f"heldout={held}",
            *sized.changes, f"steps={steps}",
            f"optimizer.warmup={min(sized.config.optimizer.warmup, max(1, steps // 10))}",
            f"evaluate_every={ceil(steps / EVALUATIONS)}", f"evaluate_packs={HELD_PACKS}", "samples.every=0",
            f"samples.frames={self.settings.frames}", f"samples.fps={self.settings.fps:g}", *_paced(sized.step),
        ]  # fmt: skip
        what = (
            f"train a transformer of {sized.parameters / 1e6:.1f}M parameters: {steps:,} steps of {sized.tokens:,} "
            f"tokens, about {clips} clips each, {sized.config.engine.dtype}{self._together}"
        )
        command = self._launched("pretrain", [str(sized.recipe), "--resume", *words])
        return Stage(PRETRAIN, what, str(self.out / "pretrain"), command, seconds, most)

    def _end(self) -> list[Stage]:
        start, bundle, samples = self.machine.start, str(self.out / "bundle"), self.out / "samples"
        told = ["--cfg", "2", "--temperature", "0.9"] if self.own else ["--cfg", "2.5", "--temperature", "0.85"]
        return [
            Stage("export", "gather what sampling needs in one folder", bundle,
                  ["vpoet", "export", str(self.out / "pretrain"), "--out", bundle], start),
            Stage("sample", "sample clips", str(samples),
                  ["vpoet", "sample", "--model", bundle, "--batch", str(samples / "prompts.txt"), *told, "--out",
                   str(samples / "sample.mp4"), "--sheet", str(samples / "sheet.png")], start + SAMPLING),
            Stage("report", "write the page", str(self.out / "index.html"),
                  ["vpoet", "report", str(self.out), "--out", str(self.out / "index.html")], start + 5),
        ]  # fmt: skip

    @property
    def _together(self) -> str:
        return f", in {self.machine.processes} processes" if self.machine.processes > 1 else ""

    def _launched(self, name: str, words: list[str]) -> list[str]:
        if self.machine.processes == 1:
            return ["vpoet", name, *words]
        program = str(sizes.shipped(TRAINS[name]))
        return ["deepspeed", "--quiet", "--num_accelerators", str(self.machine.processes), program, *words]


def _paced(step: float) -> list[str]:
    """How often a training of such steps tells of itself, and is saved."""
    return [f"log_every={max(1, round(LOGGED / step))}", f"save_every={max(1, round(SAVED / step))}"]
