"""The same clips, however they are kept; what a protocol does to them; and what is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vpoet.data.shards import ShardWriter
from vpoet.errors import DataError
from vpoet.evaluate.compare.clips import drawn, fitted, gather, prepared
from vpoet.evaluate.compare.protocol import Protocol
from vpoet.media.video import Video

PLAIN = Protocol(frames=5, fit="none", size=0)


def made(count: int = 3, frames: int = 7, seed: int = 0) -> dict[str, Video]:
    random = np.random.default_rng(seed)
    return {f"clip-{i}": Video(random.integers(0, 256, (frames, 16, 24, 3), np.uint8), 8.0) for i in range(count)}


def kept(folder: Path, clips: dict[str, Video]) -> list[Path]:
    """As videos, as frames, as shards, as lists of videos and of frames."""
    with ShardWriter(folder / "shards", kind="raw") as writer:
        for name, video in clips.items():
            video_file = folder / "videos" / f"{name}.mp4"
            video_file.parent.mkdir(exist_ok=True)
            video.write(video_file, lossless=True)
            (folder / "frames" / name).mkdir(parents=True)
            for number, frame in enumerate(video.frames):  # 10 follows 9, whatever the alphabet says
                Image.fromarray(frame).save(folder / "frames" / name / f"{number + 5}.png")
            writer.write(name, {"mp4": video_file.read_bytes(), "json": {"caption": "", "fps": 8, "source": name}})
    writer.manifest().save(folder / "shards")
    (folder / "videos" / "list.csv").write_text("path\n" + "".join(f"{name}.mp4\n" for name in clips))
    (folder / "frames" / "list.jsonl").write_text("".join(f'{{"path": "{name}"}}\n' for name in clips))
    names = ("videos", "frames", "shards", "videos/list.csv", "frames/list.jsonl")
    return [folder / name for name in names]


def test_however_clips_are_kept_they_have_the_same_names_frames_and_order(tmp_path: Path) -> None:
    clips = made()
    sources = kept(tmp_path, clips)
    for rules in (PLAIN, replace(PLAIN, real_start="random", seed=3), replace(PLAIN, fit="crop", size=12)):
        orders, starts = set(), set()
        for source in sources:
            found = gather(source)
            assert [clip.name for clip in found] == list(clips)
            orders.add(tuple(clip.name for clip in drawn(found, 5)))
            taken = np.stack([prepared(clip, rules, real=True).frames for clip in found])
            starts.add(taken.tobytes())
        assert len(orders) == len(starts) == 1


def test_frames_are_taken_from_the_start_the_seed_says_at_the_step_that_is_asked_for(tmp_path: Path) -> None:
    clips = made(count=12, frames=9)
    source, *_ = kept(tmp_path, clips)
    random = Protocol(frames=3, step=2, fit="none", size=0, real_start="random", seed=1)
    starts = []
    for clip in gather(source):
        frames = clips[clip.name].frames
        found = prepared(clip, random, real=True).frames
        starts += [at for at in range(5) if (frames[at : at + 5 : 2] == found).all()]
        assert (prepared(clip, random, real=False).frames == frames[0:5:2]).all()
        assert (prepared(clip, replace(random, real_start="first"), real=True).frames == frames[0:5:2]).all()
    assert len(starts) == 12
    assert len(set(starts)) > 2
    assert [clip.name for clip in drawn(gather(source), 0)] != [clip.name for clip in drawn(gather(source), 1)]


def test_sizes_are_what_the_protocol_says() -> None:
    frames = made(1)["clip-0"].frames  # 16 x 24
    assert (fitted(frames, PLAIN) == frames).all()
    crop = Protocol(size=16)
    assert (fitted(frames, crop) == frames[:, :, 4:20]).all()
    half = torch.from_numpy(frames[:, :, 4:20]).permute(0, 3, 1, 2).float()
    small = torch.nn.functional.interpolate(half, (8, 8), mode="bilinear").round().byte().permute(0, 2, 3, 1).numpy()
    rough = fitted(frames[:, :, 4:20], Protocol(size=8, filter="bilinear", antialias=False))
    assert (rough == small).all()
    smooth = fitted(frames[:, :, 4:20], Protocol(size=8, filter="bilinear"))
    assert smooth.std() < rough.std()
    assert fitted(frames, Protocol(size=10, fit="stretch")).shape == (7, 10, 10, 3)
    assert fitted(frames.transpose(0, 2, 1, 3), Protocol(size=10)).shape == (7, 10, 10, 3)


def test_clips_are_read_at_the_rate_that_is_asked_for_and_else_frame_by_frame(tmp_path: Path) -> None:
    source, *_ = kept(tmp_path, made(1, frames=8))
    (clip,) = gather(source)
    assert len(clip.read(0)) == 8
    assert len(clip.read(4)) == 4


def test_a_film_that_is_too_long_to_be_held_gives_the_same_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, *_ = kept(tmp_path, made(3, frames=40))
    anywhere = replace(PLAIN, real_start="random")
    held = [prepared(clip, anywhere, real=True).frames for clip in gather(source)]
    monkeypatch.setattr("vpoet.evaluate.compare.clips.HELD", 10 * 16 * 24 * 3)
    streamed = [prepared(clip, anywhere, real=True).frames for clip in gather(source)]
    firsts = [prepared(clip, anywhere, real=False).frames for clip in gather(source)]
    assert all(map(np.array_equal, held, streamed))
    assert not all(map(np.array_equal, held, firsts))
    with pytest.raises(DataError, match="clip-0: 40 frames, and the protocol takes 41"):
        prepared(gather(source)[0], replace(anywhere, frames=41), real=True)


def test_what_cannot_be_compared_is_named(tmp_path: Path) -> None:
    source, frames, *_ = kept(tmp_path, made(2))
    (clip, _) = gather(source)
    with pytest.raises(DataError, match="clip-0: 7 frames, and the protocol takes 9"):
        prepared(clip, Protocol(frames=9), real=True)
    with pytest.raises(DataError, match="clip-0: 4 frames at 4 fps, and the protocol takes 5"):
        prepared(clip, replace(PLAIN, fps=4), real=True)
    Image.new("RGB", (8, 8)).save(frames / "clip-0" / "99.png")
    with pytest.raises(DataError, match="several sizes"):
        gather(frames)[0].read(0)
    made(1)["clip-0"].write(source / "clip-1.gif")
    with pytest.raises(DataError, match="two clips are called 'clip-1'"):
        gather(source)
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="no clip in it"):
        gather(tmp_path / "none")
    with pytest.raises(DataError, match="no such file or folder"):
        gather(tmp_path / "nowhere")
    (tmp_path / "list.csv").write_text("path\nvideos/clip-0.mp4\n\n,\n")
    with pytest.raises(DataError, match="entry 2"):
        gather(tmp_path / "list.csv")
    (tmp_path / "list.csv").write_text("path\nnone\n")
    with pytest.raises(DataError, match="none: a folder without a picture"):
        gather(tmp_path / "list.csv")


def test_prompts_are_captions_or_what_the_record_beside_a_sample_says(tmp_path: Path) -> None:
    (video,) = made(1).values()
    video.write(tmp_path / "a.mp4", lossless=True)
    for record, said in (
        ('{"prompt": "a robot"}', "a robot"), ('{"prompt": 3}', ""), ("[]", ""), ("{", ""), ("\xff", ""),
        ('{"prompt": "\\ud800"}', "\ufffd"),
    ):  # fmt: skip
        (tmp_path / "a.mp4.json").write_text(record, "latin-1")
        assert gather(tmp_path)[0].prompt == said
    (tmp_path / "list.csv").write_text("path,caption\na.mp4,a dog\n")
    assert gather(tmp_path / "list.csv")[0].prompt == "a dog"
    with ShardWriter(tmp_path / "shards", kind="raw") as writer:
        json = {"caption": ["a cat", "a tomcat"], "fps": 8, "source": "a"}
        writer.write("a", {"mp4": (tmp_path / "a.mp4").read_bytes(), "json": json})
    writer.manifest().save(tmp_path / "shards")
    assert gather(tmp_path / "shards")[0].prompt == "a cat"
