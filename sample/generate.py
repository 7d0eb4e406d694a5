"""Make videos and images from a prompt, or from given ones to start from, to lead to, or to fill in."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from vpoet import STARTED, cli
from vpoet.bundle import SHIPPED
from vpoet.data.fields import printable
from vpoet.errors import PromptError
from vpoet.evaluate.plots import SHEETS
from vpoet.files import aside
from vpoet.generate.clip_file import Film
from vpoet.generate.fields import those_of
from vpoet.generate.flags import flags
from vpoet.generate.jobs import Job, Jobs, Stopwatch, linked, prepare, requests_of, rounds
from vpoet.generate.model import Request, StepCompiler, load
from vpoet.generate.prompt_file import files_of, output_files
from vpoet.generate.rollout import roll
from vpoet.generate.sampling import Sampling
from vpoet.media.sheet import contact_sheet
from vpoet.media.video import Video
from vpoet.outputs import expect_apart, expect_file
from vpoet.processes import Processes
from vpoet.serve import name_of
from vpoet.serve.client import Remote, fetch_all

console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)


@flags(Request, Sampling, before="count")
def main(
    model: Annotated[
        Path, typer.Option(help="Bundle folder. [default: the one that ships]", show_default=False)
    ] = SHIPPED,
    prompt: Annotated[list[str] | None, typer.Option(help="What to show; give it several times for several.")] = None,
    batch: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A prompt on each line, or a JSON object with the options' names: prompt, image, last, video, task, "
            "edit, was, strength, mask, outpaint, given_frames, via_image, story (a list of --then), frames, seed, ...",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="File: .mp4, .gif, .webp or .png (a contact sheet). Or a folder.")] = Path(
        "sample.mp4"
    ),
    count: Annotated[int, typer.Option(help="Clips per prompt, with seeds SEED, SEED+1, ...", min=1, max=10**5)] = 1,
    batch_size: Annotated[int, typer.Option(help="Clips that are decoded together.", min=1)] = 8,
    sheet: Annotated[Path | None, typer.Option(metavar="PNG", help="A contact sheet of all clips.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    precision: Annotated[str, typer.Option(help="Of the weights: auto, fp32, bf16 or, on a CPU, int8.")] = "auto",
    compiled: Annotated[bool, typer.Option("--compile", help="Compile the decoder first; on a CPU once.")] = False,
    guesses: Annotated[
        int | None,
        typer.Option(
            help="Speculative decoding: codes guessed per pass; 0 turns it off. "
            "[default: as many as are exact and faster]"
        ),
    ] = None,
    server: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Let a running `vpoet serve` make them, with its model called as --model is."),
    ] = None,
    local_rank: Annotated[int, typer.Option("--local_rank", hidden=True, help="Given by the launcher.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="End with one line of JSON on standard output.")] = False,
    **asked: Any,
) -> None:
    """Make videos and images from a prompt, or from given ones to start from, to lead to, or to fill in.

    Several clips are named after --out (x-0.mp4, x-1.mp4, ...), or, if --out is a folder, after their prompts. Beside
    each lies a .json that says how it was made; a clip that is there and was made with the same settings is not made
    again. A request that can't be served is reported, and the others are done. Under a launcher (torchrun, deepspeed)
    the processes share out the clips. sample/README.md has an example of everything.

    Examples:

        vpoet sample --prompt "a robot walks left on snow" --out robot.mp4
        vpoet sample --model runs/demo/bundle --prompt "a hero jumps" --image hero.png --cfg 3 --count 4 --out x.gif
        vpoet sample --model runs/demo/bundle --batch sample/prompts/platformer.txt --out runs/samples --sheet all.png
        vpoet sample --server http://127.0.0.1:8137 --prompt "a robot jumps" --out robot.mp4
        torchrun --nproc-per-node 8 sample/generate.py --batch prompts.txt --out runs/samples
    """
    spent = Stopwatch(STARTED)
    spent("start")
    everyone = Processes.sharing()
    first = everyone.rank == 0
    expect_file(sheet, SHEETS)
    asked_for, problems = requests_of(prompt or [], batch, asked, count)
    files = output_files(out, [request for _, request in asked_for])
    requests = linked(asked_for, files)
    expect_apart(sheet, [*files, batch, *(given for _, request in requests for given in files_of(request))])
    if server is not None:
        wanted = [(where, request, file) for (where, request), file in zip(requests, files, strict=True)]
        settings = those_of(Sampling, asked) | ({} if model == SHIPPED else {"model": name_of(model)})
        with Progress(console=console, disable=not console.is_terminal) as bar:
            there = bar.add_task("sampling there", total=len(wanted))
            fetched = fetch_all(Remote(server), wanted, settings, lambda done: bar.update(there, completed=done))
        problems += fetched.problems
        told = [f"warning: {each}" for each in fetched.warnings] + [f"skipped: {each}" for each in problems]
        console.print(*told, *(f"  {file}" for file in fetched.written), sep="\n")
        cli.finish({"outputs": files, "written": fetched.written, "failed": problems, "tokens": fetched.tokens}, json)
        if problems:
            raise PromptError(f"{len(problems)} requests failed; they are listed above, the others are done")
        return
    compiler = StepCompiler(lambda path: console.print(f"compiling the decoder, once: {path}")) if compiled else None
    sampler = load(model, device, precision, compiler, guesses=guesses)
    sampling = sampler.sampling(**those_of(Sampling, asked))
    if first and (unknown := sorted({word for _, request in requests for word in sampler.unknown(request.prompt)})):
        known = ", ".join(sampler.bundle.config.words)
        console.print(f"warning: words that this model never met: {printable(', '.join(unknown))}\nit knows {known}")
    spent("load")

    first_round, *later = rounds(asked_for, everyone.rank, everyone.world) or [[]]

    def prepared(members: list[int]) -> Jobs:
        return prepare(sampler, [requests[i] for i in members], [files[i] for i in members], sampling)

    jobs = prepared(first_round)
    ready, early = list(jobs.todo), len(jobs.problems)
    shares = everyone.gather((jobs.problems, jobs.unlike, bool(jobs.todo or jobs.done)))
    problems += [problem for some, *_ in shares for problem in some]
    if problems and not any(served for *_, served in shares):
        raise PromptError("\n".join(problems))
    unlike = dict.fromkeys(said for _, some, _ in shares for said in some)
    for said in [*(f"warning: {each}" for each in unlike), *(f"skipped: {problem}" for problem in problems)]:
        if first:
            console.print(said)
    spent("prepare")

    tokens, finished = 0, 0
    speed = TextColumn("{task.fields[rate]:.0f} tokens/s")
    columns = TextColumn("sampling"), BarColumn(), speed, TimeRemainingColumn()
    with Progress(*columns, console=console, disable=not (first and console.is_terminal)) as bar:
        progress = bar.add_task("", total=0, rate=0.0)

        def on_step(step: int, steps: int) -> None:
            nonlocal finished
            spent("decode" if step else "prefill")
            finished += step == steps
            done_here = step / steps if step < steps else 0.0
            bar.update(
                progress,
                completed=finished + done_here,
                rate=(tokens + step * len(group)) / max(spent.seconds["decode"], 1e-9),
            )

        def groups() -> Iterator[list[Job]]:
            """Those of a round of `rounds` once the one before it is done."""
            for members in [None, *later]:
                todo = ready if members is None else jobs.add(prepared(members))
                batches = [todo[start : start + batch_size] for start in range(0, len(todo), batch_size)]
                bar.update(progress, total=finished + sum(batch[0].rollout.count for batch in batches))
                yield from batches

        for group in groups():
            with ExitStack() as stack:
                films = [stack.enter_context(Film(job.file, job.rollout.fps)) for job in group]
                for i, decoded, pieces in roll(sampler, [job.rollout for job in group], sampling, on_step):
                    spent("detokenise")
                    tokens += len(decoded.nats)
                    group[i].count(decoded)
                    for frames in pieces:
                        films[i].add(frames)
                    if group[i].rollout.document is None:
                        if "shows" in group[i].record and first:
                            console.print(f"{group[i].file}: taken from {printable(group[i].record['shows'])!r}")
                        films[i].finish(group[i].record, group[i].codes)
                    spent("write")
    speed_here = tokens / max(spent.seconds["decode"], 1e-9)
    done = everyone.gather(([job.file for job in jobs.todo], jobs.done, tokens, speed_here, jobs.problems[early:]))
    everyone.leave()
    if not first:
        return
    written = [file for some, *_ in done for file in some]
    late = [problem for *_, some in done for problem in some]
    problems += late
    skipped, tokens, overall = (sum(each[i] for each in done) for i in (1, 2, 3))
    if sheet and (files_there := [(r, f) for (_, r), f in zip(requests, files, strict=True) if f.is_file()]):
        with aside(sheet) as unfinished:
            contact_sheet([(f"{r.prompt} ({r.seed})", Video.read(f).frames) for r, f in files_there]).save(unfinished)
        spent("write")

    parts = ", ".join(f"{name} {took:.1f} s" for name, took in spent.seconds.items())
    console.print(f"{len(written)} clips ({skipped} were there already); {overall:.0f} tokens/s; {parts}")
    for line in [*written, *([sheet] if sheet else []), *(f"skipped: {problem}" for problem in late)]:
        console.print(f"  {line}")
    summary = {"outputs": files, "written": written, "skipped": skipped, "failed": problems, "tokens": tokens}
    cli.finish({**summary, "tokens_per_second": overall, "seconds": spent.seconds}, json)
    if problems:
        raise PromptError(f"{len(problems)} requests failed; they are listed above, the others are done")


if __name__ == "__main__":
    cli.run(main)
