"""Flags that programs which compare under a protocol have in common: spelled once, so that they mean one thing."""

from pathlib import Path
from typing import Annotated

import typer

Network = Annotated[
    Path | None,
    typer.Option(
        help="What a protocol's features come from: I3D's or V-JEPA's weights, a folder of transformers, TorchScript.",
        show_default="EfficientNet-Lite0",
    ),
]
RunTorchScript = Annotated[
    bool,
    typer.Option(
        "--run-torchscript",
        help="Allow --network FILE.pt: it is a program that can do all that you can; give one that you trust.",
    ),
]
Bootstrap = Annotated[int, typer.Option(help="Sets drawn anew for each interval.", min=10, max=100_000)]
Cache = Annotated[Path | None, typer.Option(help="Folder of features, by content.", show_default="OUT/features")]
BatchSize = Annotated[int, typer.Option(help="Clips that the network sees at once.", min=1, max=4096)]
