"""`VideoTokenizer`: grids, chunks, determinism, the folder on disk and what is refused."""

import copy
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from vpoet.errors import BackendError, CheckpointError, DataError, ShapeError
from vpoet.evaluate.pixels import psnr
from vpoet.tokenizer.autoencoder import Autoencoder, AutoencoderConfig
from vpoet.tokenizer.pixels import to_float, to_uint8, whole_cells
from vpoet.tokenizer.quantiser import QuantiserConfig
from vpoet.tokenizer.text import TextTokenizer
from vpoet.tokenizer.video import SHIPPED, VideoTokenizer
from vpoet.worlds.platformer.world import Platformer


def build(seed: int = 0) -> VideoTokenizer:
    torch.manual_seed(seed)
    config = AutoencoderConfig(
        widths=[8, 12, 16],
        encoder_blocks=[1, 1, 1],
        decoder_blocks=[1, 1, 1],
        quantiser=QuantiserConfig(levels=[8, 5, 5]),
    )
    model = Autoencoder(config)
    for name, parameter in model.named_parameters():
        if "norm" not in name:
            torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1)
    return VideoTokenizer(model)


def clip(frames: int, height: int = 24, width: int = 32) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


def test_what_it_says_of_itself() -> None:
    tokenizer = build()
    assert tokenizer.stride == (4, 8, 8)
    assert tokenizer.levels == (8, 5, 5)
    assert tokenizer.codebook_size == 200
    assert tokenizer.frames(5) == 17
    assert tokenizer.grid(17, 64, 128) == (5, 8, 16)
    assert len(tokenizer.hash) == 16
    assert int(tokenizer.hash, 16) >= 0
    assert tokenizer.to("cpu").device.type == "cpu"


def test_a_vocabulary_is_named_after_what_the_codes_mean_and_not_after_the_decoder(tmp_path: Path) -> None:
    first, text = build(), TextTokenizer.train(["a robot walks right"], tmp_path / "text.model", 290)
    further = VideoTokenizer(build(seed=1).model, codes=first.hash)
    assert further.hash != first.hash
    found = further.vocabulary(text, 2)
    assert found.hash == first.vocabulary(text, 2).hash
    assert found.visual == (8, 25)


def test_a_name_of_codes_that_was_changed_in_the_file_is_noticed(tmp_path: Path) -> None:
    tokenizer = VideoTokenizer(build().model, codes="0123456789abcdef")
    tokenizer.save(tmp_path)
    assert VideoTokenizer.load(tmp_path).codes == "0123456789abcdef"
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes().replace(b"0123456789abcdef", b"fedcba9876543210"))
    with pytest.raises(CheckpointError, match="changed or damaged"):
        VideoTokenizer.load(tmp_path)


def test_codes_and_frames_have_the_promised_shapes_and_types() -> None:
    tokenizer = build()
    frames = clip(9)
    codes = tokenizer.encode(frames)
    assert codes.dtype == np.int32
    assert codes.shape == tokenizer.grid(9, 24, 32)
    assert len(np.unique(codes)) > 10
    drawn = tokenizer.decode(codes)
    assert drawn.dtype == np.uint8
    assert drawn.shape == frames.shape
    assert tokenizer.encode(frames[:1]).shape == (1, 3, 4)


def test_encoding_is_deterministic_and_leaves_the_input_alone() -> None:
    tokenizer, frames = build(), clip(9)
    before = frames.copy()
    assert np.array_equal(tokenizer.encode(frames), tokenizer.encode(frames))
    assert np.array_equal(frames, before)


@pytest.mark.parametrize("chunk_cells", [1, 2, 3, 100])
def test_chunks_give_what_the_whole_gives(chunk_cells: int) -> None:
    """Codes may differ where a value lies within 1e-5 of a rounding border: none does for this seed."""
    tokenizer, frames = build(), clip(25)
    codes = tokenizer.encode(frames, chunk_cells=chunk_cells)
    assert np.array_equal(codes, tokenizer.encode_batch(frames[None])[0])
    drawn = tokenizer.decode(codes, chunk_cells=chunk_cells).astype(int)
    assert np.abs(drawn - tokenizer.decode_batch(codes[None])[0]).max() <= 1  # a pixel level, by rounding


def test_an_image_has_the_codes_of_the_first_frame() -> None:
    tokenizer, frames = build(), clip(17)
    assert np.array_equal(tokenizer.encode(frames[:1]), tokenizer.encode(frames)[:1])


def test_a_batch_is_its_clips() -> None:
    tokenizer = build()
    frames = np.stack([clip(5), clip(5)[::-1].copy()])
    codes = tokenizer.encode_batch(frames)
    assert np.array_equal(codes[1], tokenizer.encode(frames[1]))
    assert not np.array_equal(codes[0], codes[1])


@pytest.mark.parametrize("chunk_cells", [1, 3, 100])
def test_clips_together_are_each_by_itself(chunk_cells: int) -> None:
    """As a GPU takes them; on a CPU they are not even put together, so that company changes no bit."""
    tokenizer = build()
    clips = [clip(25), clip(25)[::-1].copy(), 255 - clip(25)]
    alone = [tokenizer.encode(one, chunk_cells) for one in clips]
    assert np.array_equal(tokenizer._encode_together(np.stack(clips), chunk_cells), alone)
    together = tokenizer.encode_clips(clips, chunk_cells)
    assert all(np.array_equal(*pair) for pair in zip(together, alone, strict=True))
    assert len({codes.tobytes() for codes in alone}) == 3


def test_a_cpu_takes_clips_one_by_one_and_a_gpu_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer, seen = build(), []
    encode = tokenizer.model.encode
    monkeypatch.setattr(tokenizer.model, "encode", lambda video, past: seen.append(len(video)) or encode(video, past))
    tokenizer.encode_clips([clip(5)] * 3)
    assert seen == [1, 1, 1]
    monkeypatch.setattr(VideoTokenizer, "device", torch.device("cuda"))
    monkeypatch.setattr("vpoet.tokenizer.video.to_float", lambda frames, device: to_float(frames))
    tokenizer.encode_clips([clip(5)] * 3)
    assert seen[3:] == [3]


def test_it_computes_in_fp32_unless_told_and_leaves_torch_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's own default is TF32 for convolutions on a GPU."""
    tokenizer, seen = build(), []
    kinds = torch.backends.cudnn.conv, torch.backends.cuda.matmul  # type: ignore[attr-defined]

    def precisions() -> list[str]:
        return [kind.fp32_precision for kind in kinds]

    encode, before = tokenizer.model.encode, precisions()
    monkeypatch.setattr(tokenizer.model, "encode", lambda *given: seen.append(precisions()) or encode(*given))
    tokenizer.encode(clip(5))
    tokenizer.dtype = "tf32"
    tokenizer.encode(clip(5))
    assert seen == [["ieee", "ieee"], ["tf32", "tf32"]]
    assert precisions() == before


def test_arithmetic_that_would_make_other_codes_is_refused_with_the_reason() -> None:
    assert build().to("cpu").dtype == "fp32"
    for dtype in ("bf16", "fp16", ""):
        with pytest.raises(BackendError, match=r"fp32, or on a GPU in tf32; in bf16 about 2\.4% of all codes"):
            build().to("cpu", dtype)
    with pytest.raises(BackendError, match="this is cpu; use fp32"):
        build().to("cpu", "tf32")


@pytest.mark.parametrize(
    ("size", "nearest"),
    [
        ((16, 24, 32), "17 frames of 24x32"),
        ((14, 24, 32), "13 frames of 24x32"),
        ((0, 24, 32), "1 frames of 24x32"),
        ((17, 180, 320), "17 frames of 176x320"),
        ((17, 3, 32), "17 frames of 8x32"),
    ],
)
def test_a_size_without_a_grid_is_refused_with_the_nearest(size: tuple[int, int, int], nearest: str) -> None:
    with pytest.raises(DataError, match=f"the nearest is {nearest}"):
        build().grid(*size)


def test_frames_and_codes_of_the_wrong_kind_are_refused() -> None:
    tokenizer = build()
    with pytest.raises(DataError, match="uint8"):
        tokenizer.encode(clip(5).astype(np.float32))
    with pytest.raises(DataError, match=r"\[B, T, H, W, 3\]"):
        tokenizer.encode_batch(clip(5))
    with pytest.raises(DataError, match="another tokenizer"):
        tokenizer.decode(np.full((1, 2, 2), 200))
    with pytest.raises(ShapeError, match="3 axes"):
        tokenizer.decode(np.zeros((2, 2), int))
    with pytest.raises(ShapeError, match="integers"):
        tokenizer.decode(np.zeros((1, 2, 2)))
    with pytest.raises(ShapeError, match="chunk_cells"):
        tokenizer.encode(clip(5), chunk_cells=0)
    with pytest.raises(ShapeError, match="at least one cell"):
        tokenizer.frames(0)


def test_every_pixel_value_survives_the_networks_edge() -> None:
    frames = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 1, 16, 16, 3)
    video = to_float(frames)
    assert video.shape == (1, 3, 1, 16, 16)
    assert (video.min(), video.max()) == (-1, 1)
    assert np.array_equal(to_uint8(video), frames)
    assert to_uint8(torch.full((1, 3, 1, 1, 1), 7.0)).max() == 255


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    tokenizer, frames = build(), clip(9)
    tokenizer.save(tmp_path / "t")
    loaded = VideoTokenizer.load(tmp_path / "t")
    assert loaded.hash == tokenizer.hash
    assert np.array_equal(loaded.encode(frames), tokenizer.encode(frames))
    assert sorted(path.name for path in (tmp_path / "t").iterdir()) == ["config.yaml", "model.safetensors"]


def test_weights_that_fit_in_16_bits_take_half_the_space_and_are_the_same(tmp_path: Path) -> None:
    tokenizer = build()
    tokenizer.save(tmp_path / "fp32")
    half = VideoTokenizer(tokenizer.model.half())
    half.save(tmp_path / "fp16")
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("fp32", "fp16")]
    assert 1.8 < sizes[0] / sizes[1] < 2
    loaded = VideoTokenizer.load(tmp_path / "fp16")
    assert loaded.hash == half.hash
    codes = half.encode(clip(5))
    assert np.array_equal(loaded.encode(clip(5)), codes)
    assert np.array_equal(loaded.decode(codes), half.decode(codes))


def test_the_hash_knows_weights_and_config() -> None:
    tokenizer = build()
    assert build().hash == tokenizer.hash
    assert build(seed=1).hash != tokenizer.hash
    nudged = copy.deepcopy(tokenizer.model)
    nudged.decoder.stem.bias.data[0] += 1e-6
    assert VideoTokenizer(nudged).hash != tokenizer.hash
    changed = copy.deepcopy(tokenizer.model)
    changed.config.quantiser.levels = [5, 5, 8]  # the same count: weights fit, codes mean something else
    assert VideoTokenizer(changed).hash != tokenizer.hash


@pytest.mark.parametrize("part", ["config.yaml", "model.safetensors"])
@pytest.mark.parametrize("damage", ["missing", "cut", "junk"])
def test_a_damaged_folder_is_refused(tmp_path: Path, part: str, damage: str) -> None:
    build().save(tmp_path)
    path = tmp_path / part
    content = path.read_bytes()
    path.unlink()
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "junk":
        path.write_bytes(b"\x00\xffjunk: [")
    with pytest.raises(CheckpointError, match=str(tmp_path)):
        VideoTokenizer.load(tmp_path)


def test_a_changed_bit_or_an_edited_config_is_refused(tmp_path: Path) -> None:
    build().save(tmp_path)
    weights, config = tmp_path / "model.safetensors", tmp_path / "config.yaml"
    content = weights.read_bytes()
    weights.write_bytes(content[:-2] + bytes([content[-2] ^ 1]) + content[-1:])
    with pytest.raises(CheckpointError, match="changed or damaged"):
        VideoTokenizer.load(tmp_path)
    weights.write_bytes(content)
    VideoTokenizer.load(tmp_path)
    config.write_text(config.read_text().replace("time_stride: 4", "time_stride: 2"))
    with pytest.raises(CheckpointError, match=r"need 2|does not fit"):
        VideoTokenizer.load(tmp_path)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    build().save(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights.pop("encoder.out.bias")
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"(?s)does not fit.*encoder\.out\.bias"):
        VideoTokenizer.load(tmp_path)


def test_nan_weights_are_refused_on_both_sides(tmp_path: Path) -> None:
    tokenizer = build()
    tokenizer.save(tmp_path)
    tokenizer.model.decoder.stem.weight.data[0, 0] = float("nan")
    with pytest.raises(CheckpointError, match="NaN"):
        tokenizer.save(tmp_path / "other")
    weights = load_file(tmp_path / "model.safetensors")
    weights["decoder.stem.weight"][0, 0] = float("inf")
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"decoder\.stem\.weight"):
        VideoTokenizer.load(tmp_path)


@pytest.mark.parametrize("chunk_cells", [1, 3])
def test_a_stream_of_frames_gives_the_codes_of_the_whole_piece_by_piece(chunk_cells: int) -> None:
    """Never more frames are taken than the next piece needs: the source may have no end."""
    tokenizer = build()
    frames = clip(17)
    taken = 0

    def source() -> Iterator[np.ndarray]:
        nonlocal taken
        for frame in frames:
            taken += 1
            yield frame

    pieces = []
    for piece in tokenizer.encode_stream(source(), chunk_cells):
        pieces.append(piece)
        assert taken == tokenizer.frames(sum(map(len, pieces)))
    codes = np.concatenate(pieces)
    assert np.array_equal(codes, tokenizer.encode(frames))
    drawn = list(tokenizer.decode_stream(pieces))
    assert [len(piece) for piece in drawn] == [len(pieces[0]) * 4 - 3, *(4 * len(piece) for piece in pieces[1:])]
    assert np.abs(np.concatenate(drawn).astype(int) - tokenizer.decode(codes)).max() <= 1


def test_a_stream_that_ends_within_a_cell_is_refused() -> None:
    tokenizer = build()
    pieces = tokenizer.encode_stream(clip(11), chunk_cells=1)
    assert [next(pieces).shape[0] for _ in range(3)] == [1, 1, 1]
    with pytest.raises(DataError, match=r"11 frames of 24x32 do not fit.*the nearest is 9 frames"):
        next(pieces)


@pytest.mark.parametrize(("frames", "whole", "filled"), [(1, 1, 1), (4, 1, 5), (5, 5, 5), (6, 5, 9)])
def test_frames_are_cut_or_filled_up_to_whole_cells(frames: int, whole: int, filled: int) -> None:
    video = clip(frames, height=21, width=32)
    cut = np.stack(list(whole_cells(video, (4, 8, 8), pad=False)))
    assert np.array_equal(cut, video[:whole])
    padded = np.stack(list(whole_cells(video, (4, 8, 8), pad=True)))
    assert padded.shape == (filled, 24, 32, 3)
    assert np.array_equal(padded[:frames, :21], video)
    assert (padded[:, 21:] == padded[:, 20:21]).all()
    assert (padded[frames:] == padded[frames - 1]).all()


def test_the_tokenizer_that_ships_is_small_and_knows_the_world() -> None:
    """A clip of the platformer world that it was not trained on; a picture of noise would give 10 dB."""
    tokenizer = VideoTokenizer.load()
    assert tokenizer.stride == (4, 8, 8)
    assert tokenizer.codebook_size >= 0.97 * 2**16
    assert sum(path.stat().st_size for path in SHIPPED.rglob("*")) < 30e6
    frames = Platformer().clip(10**6 + 1)[0]
    drawn = tokenizer.decode(tokenizer.encode(frames))
    assert psnr(frames, drawn) > 20
