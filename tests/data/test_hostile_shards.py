"""Shards of other people: read where they can be, else skipped, counted and named; and nothing leads outside."""

import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vpoet.data.fields import plain_key
from vpoet.data.npy import npy_to_codes
from vpoet.data.shards import Manifest, Problems, Sample, ShardInfo, read_shard
from vpoet.errors import DataError
from vpoet.files import fingerprint
from vpoet.media.video import Video
from vpoet.tokenizer.autoencoder import Autoencoder, AutoencoderConfig
from vpoet.tokenizer.quantiser import QuantiserConfig
from vpoet.tokenizer.video import VideoTokenizer

Program = Callable[..., tuple[int, str, str]]
Member = tuple[str, bytes | None, dict[str, Any]]

CLIP = Video(np.random.default_rng(0).integers(0, 255, (5, 16, 16, 3), np.uint8), 8.0).encode(".mp4")
ABOUT = {"caption": "a", "fps": 8.0, "frames": 5, "height": 16, "width": 16}


def pair(key: str, about: bytes | dict[str, Any] = ABOUT, clip: bytes = CLIP) -> list[Member]:
    text = about if isinstance(about, bytes) else json.dumps(about).encode()
    return [(f"{key}.json", text, {}), (f"{key}.mp4", clip, {})]


def tar(path: Path, members: list[Member], kind: str = "w", cut: int = 0) -> Path:
    """A tar of (name, content, attributes); without content it is no file."""
    with tarfile.open(path, kind, format=tarfile.PAX_FORMAT) as file:
        for name, data, attributes in members:
            member = tarfile.TarInfo(name)
            member.size = len(data or b"")
            for attribute, value in attributes.items():
                setattr(member, attribute, value)
            file.addfile(member, None if data is None else io.BytesIO(data))
    path.write_bytes(path.read_bytes()[: -cut or None])
    return path


def found(path: Path) -> tuple[list[Sample], dict[str, int]]:
    problems = Problems()
    samples = list(read_shard(path, problems=problems))
    json.dumps(problems.to_dict(), ensure_ascii=False).encode()  # whatever the names are, the report takes them
    return samples, problems.counts


GOOD = pair("good") + pair("last")


@pytest.mark.parametrize(
    ("members", "keys", "reasons"),
    [
        (pair("some/clip"), ["some/clip"], {}),
        (pair("../../outside"), ["../../outside"], {}),
        (pair("/etc/passwd"), ["/etc/passwd"], {}),
        (pair("./a"), ["./a"], {}),
        (pair("\u00fcber \u732b"), ["\u00fcber \u732b"], {}),
        (pair("x" * 300), ["x" * 300], {}),
        (pair("a\x1b[31m\n"), ["a\x1b[31m\n"], {}),
        (pair("bad\udce9"), ["bad\udce9"], {}),
        ([("a.b.c.JSON", b"{}", {})], [], {"missing json": 1}),
        ([("README", b"x", {}), ("._a.json", b"x", {})], [], {"not named KEY.EXTENSION": 2}),
        ([("__meta__", b"x", {}), ("folder", None, {"type": tarfile.DIRTYPE})], [], {}),
        (pair("only")[:1], ["only"], {}),
        (pair("only")[1:], [], {"missing json": 1}),
        (pair("a", b"[1]") + pair("b", b"\xff\xfe\x00") + pair("c", b"{") + pair("d", b""), [], {"broken json": 4}),
        (pair("deep", b"[" * 100_000) + pair("digits", b'{"a": ' + b"1" * 5000 + b"}"), [], {"broken json": 2}),
        (pair("deep", b'{"a": ' + b"[" * 100 + b"]" * 100 + b"}"), [], {"broken json": 1}),
        (pair("bom", b"\xef\xbb\xbf{}") + pair("wide", json.dumps(ABOUT).encode("utf-16")), ["bom", "wide"], {}),
        (pair("twice") + pair("twice"), [], {"json comes twice": 1}),
        (pair("apart") + pair("between") + pair("apart"), ["apart", "between", "apart"], {}),
        (
            [
                ("a.json", b"{}", {}),
                ("a.mp4", None, {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}),
                ("a.png", None, {"type": tarfile.LNKTYPE, "linkname": "../x"}),
                ("a.webp", None, {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 5}),
                ("a.jpg", None, {"type": tarfile.FIFOTYPE}),
            ],
            ["a"],
            {"a link, a device or a file with holes": 4},
        ),
    ],
)
def test_samples_of_other_people(
    tmp_path: Path, members: list[Member], keys: list[str], reasons: dict[str, int]
) -> None:
    samples, counts = found(tar(tmp_path / "a.tar", [*GOOD[:2], *members, *GOOD[2:]]))
    assert [sample.key for sample in samples] == ["good", *keys, "last"]
    assert counts == reasons


def test_what_json_has_not_is_read_as_what_it_has(tmp_path: Path) -> None:
    text = (
        b'{"a": NaN, "b": [-Infinity, 1e999], "caption": ["\\ud800 x", "\\ud83d\\ude00", 5, null, " "], "a\\ud800": 1}'
    )
    (sample,), counts = found(tar(tmp_path / "a.tar", pair("a", text)))
    assert sample.json == {
        "a": None,
        "b": [None, None],
        "caption": ["\ufffd x", "\U0001f600", 5, None, " "],
        "a\ufffd": 1,
    }
    assert sample.captions == ["\ufffd x", "\U0001f600"]
    assert not counts


@pytest.mark.parametrize(
    ("kind", "cut"),
    [("w", 0), ("w", 12_000), ("w:gz", 0), ("w:gz", 100), ("w:bz2", 0), ("w:bz2", 300), ("w:xz", 0), ("w:xz", 300)],
)
def test_a_tar_that_is_cut_is_told_packed_or_not(tmp_path: Path, kind: str, cut: int) -> None:
    members = [member for number in range(20) for member in pair(f"k{number}")]
    samples, counts = found(tar(tmp_path / "a.tar", members, kind, cut))
    assert counts.get("broken tar", 0) == (cut > 0)
    assert (sum("mp4" in sample.parts for sample in samples) == 20) == (not cut)


def test_keys_are_made_plain_and_stay_apart() -> None:
    keys = ["a", "a/b", "a-b", "a\\b", "../a", "x" * 90, "x" * 91, "\u00fc", "\udce9", ""]
    plain = list(map(plain_key, keys))
    assert len(set(plain)) == len(keys)
    assert all(len(key) <= 80 and key.isascii() and key.replace("-", "").replace("_", "").isalnum() for key in plain)
    assert (plain[0], plain[2]) == ("a", "a-b")
    assert list(map(plain_key, plain)) == plain


@pytest.fixture(scope="module")
def coder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    sizes = {"widths": [8, 8, 8], "encoder_blocks": [0, 0, 0], "decoder_blocks": [0, 0, 0]}
    network = Autoencoder(AutoencoderConfig(**sizes, quantiser=QuantiserConfig(levels=[4, 3, 3])))
    folder = tmp_path_factory.mktemp("coder")
    VideoTokenizer(network).save(folder)
    return folder


def raw(folder: Path, members: list[Member], name: str = "raw-00000-00000.tar") -> Path:
    folder.mkdir(exist_ok=True)
    about = fingerprint(tar(folder / name, members))
    Manifest("raw", [ShardInfo(name, len(members) // 2, int(about["bytes"]), str(about["sha256"]))]).save(folder)
    return folder


def test_encode_takes_what_it_can_and_names_the_rest(coder: Path, tmp_path: Path, program: Program) -> None:
    odd = ["some/clip", "../up", "y" * 90, "\u732b", "apart", "between", "apart"]
    members = [member for key in odd for member in pair(key, ABOUT | {"score": float("nan")})]
    members += pair("empty", clip=b"") + pair("no-clip")[:1] + pair("good")
    out = tmp_path / "tokens"
    folder = raw(tmp_path / "raw", members)
    command = ["tokenizers/encode_shards.py", folder, "--tokenizer", coder, "--out", out, "--json"]
    status, said, err = program(*command, "--keyframes")
    assert status == 0, err
    left_out = json.loads(said.splitlines()[-1])["left_out"]
    assert left_out["names"]["another sample has that key"] == ["apart"]
    assert sum(left_out["counts"].values()) == 3
    (shard,) = Manifest.load(out).shards
    samples = list(read_shard(out / shard.name))
    told = [sample.json.get("key", sample.key) for sample in samples]
    assert told == ["some/clip", "../up", "y" * 90, "\u732b", "apart", "between", "good"]
    assert all(npy_to_codes(sample.parts["keyframes.npy"]).shape == (2, 2, 2) for sample in samples)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw", "tokens"]


SHARD = {"name": "a.tar", "samples": 1, "bytes": 1, "sha256": "0" * 64}
MANIFEST = {"format": 1, "kind": "raw", "tokenizer": None, "shards": [SHARD]}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00\xff\xfe",
        b"[" * 100_000,
        b"[]",
        b"null",
        b'{"format": 1}',
        *(
            json.dumps(MANIFEST | {"shards": [SHARD | {"name": name}]}).encode()
            for name in (
                *(
                    "../x.tar",
                    "/etc/x.tar",
                    "sub/x.tar",
                    "..",
                    ".",
                    "",
                    "a\\x.tar",
                    "a\u0000.tar",
                    "a.txt",
                    "a\ud800.tar",
                ),
                *("manifest.tar", "x" * 300 + ".tar", "\u202ea.tar", 5, None, ["a.tar"]),
            )
        ),
        *(
            json.dumps(MANIFEST | {"shards": [SHARD | changed]}).encode()
            for changed in (
                {"samples": -1},
                {"samples": "1"},
                {"samples": True},
                {"bytes": 1.5},
                {"bytes": None},
                {"sha256": "x"},
                {"sha256": 5},
                {"more": 1},
            )
        ),
        *(
            json.dumps(MANIFEST | changed).encode()
            for changed in (
                {"shards": None},
                {"shards": {"a": 1}},
                {"shards": [SHARD, SHARD]},
                {"shards": ["a.tar"]},
                {"kind": "cooked"},
                {"kind": []},
                {"tokenizer": 5},
            )
        ),
    ],
)
def test_a_manifest_that_is_damaged_or_points_elsewhere_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(DataError, match=r"manifest\.json: not a manifest of shards: .*make the shards again") as error:
        Manifest.load(tmp_path)
    assert len(str(error.value)) < 1000


def test_a_sound_manifest_is_read(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps(MANIFEST))
    assert Manifest.load(tmp_path).shards == [ShardInfo(**SHARD)]


def test_encode_writes_nothing_outside(coder: Path, tmp_path: Path, program: Program) -> None:
    """A manifest that points outside, shards over themselves, and tokens for raw ones."""
    folder = raw(tmp_path / "raw", pair("a"))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    status, _, err = program("tokenizers/encode_shards.py", folder, "--tokenizer", coder, "--out", folder)
    assert (status, "another folder" in err) == (2, True)
    manifest = Manifest.load(folder)
    (folder / "manifest.json").write_text(
        json.dumps(MANIFEST | {"kind": "tokens", "shards": [asdict(manifest.shards[0])]})
    )
    status, _, err = program("tokenizers/encode_shards.py", folder, "--tokenizer", coder, "--out", tmp_path / "t")
    assert (status, "raw ones are needed" in err) == (2, True)
    manifest.save(folder)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    "damage",
    [
        lambda record: b"",
        lambda record: b"[]",
        lambda record: b"\xff\x00",
        lambda record: b"{" * 5000,
        lambda record: json.dumps(record | {"shard": None}).encode(),
        lambda record: json.dumps(
            record | {"shard": record["shard"] | {"name": "../raw/raw-00000-00000.tar"}}
        ).encode(),
        lambda record: json.dumps(record | {"shard": record["shard"] | {"bytes": -1}}).encode(),
        lambda record: json.dumps({name: value for name, value in record.items() if name != "tokenizer"}).encode(),
    ],
)
def test_a_damaged_record_of_encode_is_made_anew(
    coder: Path, tmp_path: Path, program: Program, damage: Callable[[dict[str, Any]], bytes]
) -> None:
    folder = raw(tmp_path / "raw", pair("a"))
    command = ["tokenizers/encode_shards.py", folder, "--tokenizer", coder, "--out", tmp_path / "t"]
    assert program(*command)[0] == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    path = tmp_path / "t" / "raw-00000-00000.json"
    path.write_bytes(damage(json.loads(path.read_bytes())))
    assert program(*command)[0] == 0
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("shape", [(10**6, 10**6, 10**6), (2**70, 1, 1), (-1, 2, 2), ("x", 1, 1)])
def test_codes_of_no_size_that_can_be(shape: tuple[Any, ...]) -> None:
    header = f"{{'descr': '<u2', 'fortran_order': False, 'shape': {shape!r}, }}".encode().ljust(117) + b"\n"
    with pytest.raises(DataError, match=r"not a \.npy of codes"):
        npy_to_codes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)


def test_several_arrays_are_no_codes() -> None:
    file = io.BytesIO()
    np.savez(file, a=np.zeros((1, 1, 1), np.uint16))
    with pytest.raises(DataError, match="several arrays"):
        npy_to_codes(file.getvalue())
