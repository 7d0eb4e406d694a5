"""Write a bundle's transformer for Hugging Face's transformers to load, with equal logits."""

import json as jsons
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from safetensors.torch import save_file

from vpoet import bundle, cli
from vpoet.errors import ConfigError, OutputError
from vpoet.files import folder_aside
from vpoet.nn.huggingface import FORMS
from vpoet.outputs import expect_folder
from vpoet.training.precision import DTYPES, IN_FILES


def main(
    model: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The bundle; it stays as it is.")],
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    part: Annotated[
        str, typer.Option(help="text: a Qwen3 of texts alone. all: a Qwen3-VL of all ids, of a flat codebook.")
    ] = "text",
    dtype: Annotated[str, typer.Option(help="Of the weights in the file: fp32, or fp16 in half the space.")] = "fp32",
    json: Annotated[bool, typer.Option("--json", help="End with one line of JSON on standard output.")] = False,
) -> None:
    """Write a bundle's transformer as a folder that Hugging Face's transformers loads, with equal logits.

    text, of any bundle: a Qwen3ForCausalLM whose ids are special tokens, numbers and text pieces. It is no Llama: ours
    has norms on queries and keys, as Qwen3.

    all, of a bundle with a flat codebook (model.visual_groups: 1): a Qwen3VLForConditionalGeneration whose ids are all
    of ours. Pass the positions (t, h, w) as position_ids [3, 1, T]; Qwen3 itself has one rotary axis. A factorised
    head, which predicts a code digit by digit, has no counterpart there, nor has a window with a sink.

    ids.json says which ids are what, text.model makes the pieces. Attention is causal there: for a prefix-LM pass a
    mask as well.

    Examples:

        vpoet export-hf runs/demo/bundle --out runs/demo/qwen3
        vpoet export-hf runs/flat/bundle --part all --out runs/flat/qwen3-vl
    """
    console = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)
    if part not in FORMS:
        raise ConfigError(f"--part {part}: there are {' and '.join(FORMS)}")
    if dtype not in IN_FILES:
        raise ConfigError(f"--dtype {dtype}: there are {' and '.join(IN_FILES)}")
    expect_folder(out)
    if out.is_dir() and any(out.iterdir()):
        raise OutputError(f"{out}: is not empty; choose another name, or remove it yourself")
    cli.hold(out, replaced=True)
    whole = bundle.load(model)
    if part == "all" and whole.config.model.controls:
        raise ConfigError(f"{model}: reads controls, for which there is no place there; export its text part alone")
    if part == "all" and whole.config.window:
        raise ConfigError(
            f"{model}: sees the last {whole.config.window} frames and the prompt, which no attention there does; "
            "export its text part alone"
        )
    config, tensors = FORMS[part](whole.transformer, whole.config.length)
    vocabulary = whole.transformer.vocabulary
    ids = {
        "ranges": {name: list(ends) for name, ends in vocabulary.ranges.items()},
        "special": {vocabulary.name(token): token for token in range(vocabulary.ranges["special"].stop)},
        "vocabulary": vocabulary.hash,
        "bundle": whole.hash,
    }
    with folder_aside(out) as fresh:
        config["dtype"] = str(DTYPES[dtype]).removeprefix("torch.")
        (fresh / "config.json").write_text(jsons.dumps(config, indent=2))
        (fresh / "ids.json").write_text(jsons.dumps(ids, indent=2))
        whole.text.save(fresh / bundle.TEXT)
        save_file(
            {name: tensor.detach().to(DTYPES[dtype], copy=True).contiguous() for name, tensor in tensors.items()},
            fresh / bundle.WEIGHTS, metadata={"format": "pt"},
        )  # fmt: skip
    name = config["architectures"][0]
    prefix = "; its prompts were read both ways (prefix-LM), so pass a mask" if whole.config.bidirectional else ""
    console.print(f"{out}: a {name} of {sum(map(torch.numel, tensors.values())) / 1e6:.2f}M numbers{prefix}")
    console.print(f'next: transformers.{name}.from_pretrained("{out}")')
    cli.finish({"folder": out, "architecture": name, "tensors": len(tensors), "ids": vocabulary.size}, json)


if __name__ == "__main__":
    cli.run(main)
