"""One HTML page that shows a run: everything embedded, so that the file alone can be mailed or put on a shelf."""

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vpoet.errors import DataError
from vpoet.files import write_atomic

MEDIA = {".png": "image/png", ".jpg": "image/jpeg", ".gif": "image/gif", ".webp": "image/webp", ".svg": "image/svg+xml"}
VIDEO = {".mp4": "video/mp4", ".webm": "video/webm"}


@dataclass(frozen=True)
class Picture:
    """An image or a video file, with the words below it."""

    path: Path
    caption: str = ""


@dataclass(frozen=True)
class Table:
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Listing:
    """Text whose lines stay as they are, folded away behind its name."""

    name: str
    text: str


Part = str | Table | Listing | Sequence[Picture]


@dataclass(frozen=True)
class Section:
    """A heading and what follows it, in order: text (a str is a paragraph), tables, listings, and rows of pictures."""

    title: str
    parts: Sequence[Part]


def write_report(path: str | Path, title: str, sections: Sequence[Section]) -> None:
    """Write the page. DataError: a picture that is missing, or of a kind that browsers do not show."""
    body = "\n".join(
        f"<section>\n<h2>{html.escape(section.title)}</h2>{''.join(map(_part, section.parts))}\n</section>"
        for section in sections
    )
    page = PAGE.replace("{title}", html.escape(title)).replace("{body}", body)
    write_atomic(path, page)


def _part(part: Part) -> str:
    if isinstance(part, str):
        return f"<p>{html.escape(part)}</p>"
    if isinstance(part, Listing):
        return f"<details><summary>{html.escape(part.name)}</summary><pre>{html.escape(part.text)}</pre></details>"
    if isinstance(part, Table):
        head = "".join(f"<th>{html.escape(cell)}</th>" for cell in part.header)
        rows = ["".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in part.rows]
        return f'<div class="wide"><table><tr>{head}</tr>{"".join(f"<tr>{row}</tr>" for row in rows)}</table></div>'
    return f'<div class="row">{"".join(map(_figure, part))}</div>'


def _figure(picture: Picture) -> str:
    suffix = picture.path.suffix.lower()
    kind = MEDIA.get(suffix) or VIDEO.get(suffix)
    if kind is None:
        raise DataError(f"{picture.path}: a report shows {', '.join([*MEDIA, *VIDEO])}")
    try:
        source = f"data:{kind};base64,{base64.b64encode(picture.path.read_bytes()).decode()}"
    except OSError as error:
        raise DataError(f"{picture.path}: picture not readable: {error.strerror}") from None
    words = html.escape(picture.caption, quote=True)
    media = (
        f'<video src="{source}" aria-label="{words}" autoplay loop muted playsinline></video>'
        if suffix in VIDEO
        else f'<img src="{source}" alt="{words}">'
    )
    return f"<figure>{media}<figcaption>{words}</figcaption></figure>"


PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
  :root { color-scheme: light dark; --ink: #1d2129; --soft: #667085; --paper: #fbfbfa; --card: #fff; --line: #e3e4e8; }
  @media (prefers-color-scheme: dark) {
    :root { --ink: #e6e7ea; --soft: #98a0ae; --paper: #14161a; --card: #1c1f25; --line: #2e323a; }
  }
  body { margin: 0 auto; max-width: 70rem; padding: 2.5rem 1.25rem 4rem; background: var(--paper); color: var(--ink);
         font: 16px/1.55 system-ui, sans-serif; }
  h1 { font-size: 1.9rem; margin: 0 0 1.5rem; letter-spacing: -.01em; }
  section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 1.1rem 1.3rem;
            margin: 0 0 1.2rem; }
  h2 { font-size: 1.15rem; margin: 0 0 .6rem; }
  p { margin: .4rem 0; color: var(--soft); max-width: 46rem; }
  .row { display: flex; flex-wrap: wrap; gap: 1rem; margin: .8rem 0; }
  figure { margin: 0; max-width: 100%; flex: 0 1 auto; }
  img, video { display: block; max-width: 100%; min-width: 8rem; border-radius: 6px; background: #fff;
               image-rendering: pixelated; }
  img[src^="data:image/svg"] { padding: .3rem; }
  video { width: 14rem; }
  video + figcaption { max-width: 14rem; }
  figcaption { font-size: .85rem; color: var(--soft); margin-top: .3rem; max-width: 60rem; overflow-wrap: anywhere; }
  .wide { overflow-x: auto; }
  table { border-collapse: collapse; font-size: .88rem; margin: .5rem 0; }
  th, td { text-align: left; padding: .3rem .9rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
  td, pre { font-family: ui-monospace, monospace; font-size: .82rem; }
  pre { overflow-x: auto; margin: .5rem 0; }
  summary { cursor: pointer; color: var(--soft); }
</style>
<h1>{title}</h1>
{body}
</html>
"""
