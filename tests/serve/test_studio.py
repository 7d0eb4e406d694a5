"""A server of models, asked over real sockets: clips bit-equal to those of Python, in one line, kept."""

import base64
import http.client
import io
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.sync.client import connect

from vpoet.data.npy import codes_to_npy
from vpoet.errors import PromptError
from vpoet.generate.batching import Continuous
from vpoet.generate.clip_file import is_made
from vpoet.generate.model import Model, Request
from vpoet.generate.prompt_file import record
from vpoet.media.comments import read_comment
from vpoet.media.video import Video
from vpoet.serve.client import Remote, fetch_all

NPY = base64.b64encode(codes_to_npy(np.zeros((3, 2, 3), np.int32))).decode()
CLIP = Video(np.random.default_rng(0).integers(0, 256, (9, 20, 30, 3), np.uint8), 12.0)


@pytest.fixture
def remote(studio_port: int) -> Remote:
    return Remote(f"http://127.0.0.1:{studio_port}")


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """A clip whose rate and size are not the model's, a picture and a mask."""
    found = {name: tmp_path / name for name in ("clip.mp4", "picture.png", "mask.png")}
    CLIP.write(found["clip.mp4"])
    Video(CLIP.frames[:1], 0).write(found["picture.png"])
    mask = np.zeros((1, 20, 30, 3), np.uint8)
    mask[:, :10, :12] = 255
    Video(mask, 0).write(found["mask.png"])
    return found


def asked(port: int, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
    line = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    line.request(method, path, body, headers)
    answer = line.getresponse()
    return answer.status, answer.read()


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"frames": 1},
        {"image": "picture.png"},
        {"image": "picture.png", "last": "clip.mp4"},
        {"video": "clip.mp4"},
        {"video": "clip.mp4", "task": "backward", "given_frames": 5},
        {"video": "clip.mp4", "task": "interpolation", "fps": 24, "height": 16, "width": 16},
        {"video": "clip.mp4", "mask": "mask.png"},
        {"image": "picture.png", "outpaint": (4, 0, 4, 0)},
        {"frames": 17, "story": ((9, "a hero jumps"),)},
    ],
    ids=str,
)
def test_a_clip_is_that_of_the_model_here(
    remote: Remote, samplers: dict[str, Model], files: dict[str, Path], fields: dict[str, Any]
) -> None:
    given = {name: files.get(str(value), value) for name, value in fields.items()}
    request = Request(prompt="a robot walks", seed=5, **given)
    said: list[str] = []
    clip = remote.wait(remote.ask(request, guidance=1.5), lambda event: said.append(event["event"]))
    model = samplers["small"]
    (wanted,) = model.sample_batch([request], model.sampling(guidance=1.5))
    assert np.array_equal(remote.frames(clip), wanted.frames)
    assert clip["fps"] == wanted.fps
    assert said[-1] == "done"
    assert "seen" in said
    assert clip["record"]["model"] == model.bundle.hash
    assert sum(nats for *_, nats, _ in clip["surprise"]) == pytest.approx(clip["record"]["nats"], rel=1e-4)


def test_everything_is_there_in_every_kind_and_a_file_says_what_was_asked(remote: Remote, studio_port: int) -> None:
    clip = remote.wait(remote.ask(Request(prompt="a hero jumps", seed=7), model="large", temperature=0.5))
    frames = remote.frames(clip)
    for kind in ("mp4", "gif", "png"):
        status, data = asked(studio_port, "GET", f"/api/clips/{clip['id']}.{kind}")
        assert status == 200
        told = json.loads(read_comment(data))["vpoet"]
        assert (told["prompt"], told["seed"], told["temperature"]) == ("a hero jumps", 7, 0.5)
        sent = json.loads(asked(studio_port, "POST", "/api/uploads", data)[1])  # drop it on the page
        assert json.loads(sent["comment"])["vpoet"] == told
        if kind != "png":
            assert Video.read(data).frames.shape == frames.shape
    _, data = asked(studio_port, "GET", f"/api/clips/{clip['id']}.rgb")
    assert data == frames.tobytes()
    _, data = asked(studio_port, "GET", f"/api/clips/{clip['id']}.npz")
    assert np.load(io.BytesIO(data))["codes_0"].shape == (3, 2, 3)
    assert asked(studio_port, "DELETE", f"/api/clips/{clip['id']}")[0] == 200
    assert asked(studio_port, "GET", f"/api/clips/{clip['id']}.mp4")[0] == 404


def test_an_edit_is_that_of_the_model_here_by_the_codes_of_its_clip(
    remote: Remote, studio_port: int, samplers: dict[str, Model], tmp_path: Path
) -> None:
    model, first = samplers["small"], Request(prompt="a robot walks", seed=5)
    clip, made = remote.wait(remote.ask(first)), tmp_path / "made.mp4"
    remote.fetch(first, clip, made)
    request = Request(prompt="a hero walks", edit=made, strength=0.5, seed=2)
    (wanted,) = model.sample_batch([request], model.sampling())
    there = remote.wait(remote.ask(request))
    assert np.array_equal(remote.frames(there), wanted.frames)
    assert not np.array_equal(wanted.frames, remote.frames(clip))
    remote.fetch(request, there, tmp_path / "edited.mp4")
    told = record(request, model.sampling(), model) | {"shows": "a robot walks"}
    assert is_made(tmp_path / "edited.mp4", told)

    mask = remote.upload(mask_of(tmp_path / "mask.png"))
    body = {"prompt": "a hero walks", "edit": clip["id"], "strength": 0.5, "seed": 2}
    for more, same in (({}, wanted.frames), ({"mask": mask}, None)):
        status, said = asked(studio_port, "POST", "/api/jobs", json.dumps({**body, **more}).encode())
        assert status == 201, said
        found = remote.wait(json.loads(said)["jobs"][0]["id"])  # by its name there
        assert same is None or np.array_equal(remote.frames(found), same)
        tokens = sum(each for *_, each in found["surprise"])
        assert tokens == found["record"]["tokens"] == (18 if same is not None else 6)
    again = remote.wait(remote.ask(Request(prompt="a robot walks", edit=made, seed=9)))
    assert np.array_equal(remote.frames(again), remote.frames(clip))  # nothing is changed


def mask_of(file: Path) -> Path:
    """White in a third of a frame of 16x24."""
    mask = np.zeros((1, 16, 24, 3), np.uint8)
    mask[:, :, :8] = 255
    Video(mask, 0).write(file)
    return file


def test_a_step_of_a_chain_is_asked_for_when_the_one_before_it_is_there(
    remote: Remote, samplers: dict[str, Model], tmp_path: Path
) -> None:
    files = [tmp_path / f"{i}.mp4" for i in range(3)]
    steps = [
        Request(prompt="a robot walks", seed=5),
        Request(prompt="a hero walks", edit=files[0], strength=0.5),
        Request(prompt="a robot jumps", video=files[1]),
    ]
    wanted = [(f"step {i}", request, file) for i, (request, file) in enumerate(zip(steps, files, strict=True))]
    told: list[float] = []
    fetched = fetch_all(remote, wanted, {}, told.append)
    assert (fetched.problems, fetched.written, told[-1]) == ([], files, 3)
    for request, file in zip(steps, files, strict=True):
        (here,) = samplers["small"].sample_batch([request], samplers["small"].sampling())
        here.write(tmp_path / "here.mp4")
        assert (tmp_path / "here.mp4").read_bytes() == file.read_bytes()


def test_an_edit_of_a_file_that_tells_no_codes_begins_with_its_frames(
    remote: Remote, samplers: dict[str, Model], tmp_path: Path
) -> None:
    clip = Video(np.random.default_rng(0).integers(0, 256, (9, 16, 24, 3), np.uint8), 8.0)
    clip.write(tmp_path / "found.mp4")
    request = Request(
        prompt="a hero", edit=tmp_path / "found.mp4", was="a robot", strength=0.5, mask=mask_of(tmp_path / "mask.png")
    )
    (wanted,) = samplers["small"].sample_batch([request], samplers["small"].sampling())
    found = remote.wait(remote.ask(request))
    assert np.array_equal(remote.frames(found), wanted.frames)
    assert found["record"]["shows"] == "a robot"


def test_what_cannot_be_edited_is_told(remote: Remote, studio_port: int, files: dict[str, Path]) -> None:
    clip = remote.wait(remote.ask(Request(prompt="a robot")))
    strange = {"codes": {"npy": NPY, "fps": 8}, "decoder": "another's", "prompt": "a robot"}
    sent = json.loads(asked(studio_port, "POST", "/api/uploads", json.dumps(strange).encode())[1])
    assert sent["kind"] == "codes"
    assert asked(studio_port, "GET", f"/api/uploads/{sent['id']}/preview")[0] == 200
    for fields, told in (
        ({"edit": clip["id"], "was": "auto"}, "was: tell what the clip shows"),
        ({"edit": clip["id"], "image": sent["id"]}, "edit and image are given"),
        ({"edit": clip["id"], "strength": 2}, "strength = 2.0: it must be 0 to 1"),
        ({"was": "a robot"}, "was is given"),
        ({"image": clip["id"]}, "image: no such upload"),
        ({"edit": "0" * 16}, "edit: no such upload"),
    ):
        status, said = asked(studio_port, "POST", "/api/jobs", json.dumps(fields).encode())
        assert status == 400
        assert told in json.loads(said)["error"]
    for fields, told in (
        ({"edit": sent["id"]}, "another video tokenizer"),
        ({"edit": clip["id"], "temperature": 0}, "temperature = 0"),
        ({"edit": clip["id"], "height": 24}, "an edit keeps its size"),
        ({"edit": remote.upload(files["picture.png"])}, "was: no record"),
        ({"image": sent["id"]}, "not a video or image"),
    ):
        job = json.loads(asked(studio_port, "POST", "/api/jobs", json.dumps(fields).encode())[1])["jobs"][0]["id"]
        with pytest.raises(PromptError, match=told):
            remote.wait(job)


def test_who_waits_behind_a_clip_that_is_damaged_is_served(remote: Remote, studio_port: int, tmp_path: Path) -> None:
    clip = remote.wait(remote.ask(Request(prompt="a robot")))
    for damaged in (b"no archive", b""):
        (tmp_path / "clips" / f"{clip['id']}.npz").write_bytes(damaged)
        body = json.dumps({"edit": clip["id"], "prompt": "a hero"}).encode()
        job = json.loads(asked(studio_port, "POST", "/api/jobs", body)[1])["jobs"][0]["id"]
        behind = remote.ask(Request(prompt="a robot", frames=1))
        with pytest.raises(PromptError, match="the server's own"):
            remote.wait(job)
        assert remote.wait(behind)["frames"] == 1


def test_several_wait_in_line_and_none_is_lost(remote: Remote, samplers: dict[str, Model]) -> None:
    """More than are decoded at once, so that the last ones wait for a first one's end."""
    asked_for = Continuous.MOST + 4
    jobs = {seed: remote.ask(Request(prompt="a robot", seed=seed, frames=65)) for seed in range(asked_for)}
    places: dict[int, list[int]] = {seed: [] for seed in jobs}
    clips: dict[int, Any] = {}

    def follow(seed: int) -> None:
        note = places[seed].append
        clips[seed] = remote.wait(jobs[seed], lambda e: note(e["position"]) if e["event"] == "waiting" else None)

    threads = [threading.Thread(target=follow, args=(seed,)) for seed in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    for seed in jobs:
        wanted = samplers["small"].sample("a robot", seed=seed, frames=65).frames
        assert np.array_equal(remote.frames(clips[seed]), wanted)
        assert places[seed] == sorted(places[seed], reverse=True)
    assert max(max(each, default=0) for each in places.values()) > 0


def test_who_cancels_frees_the_line_at_once(remote: Remote, studio_port: int) -> None:
    long = remote.ask(Request(prompt="a robot", frames=2049))
    waiting, short = remote.ask(Request(prompt="a robot", seed=1)), remote.ask(Request(prompt="a robot", seed=2))
    remote.cancel(waiting)
    assert [event["event"] for event in remote.events(waiting)][-1] == "cancelled"
    remote.cancel(long)
    assert remote.wait(short)["frames"] == 9
    assert [event["event"] for event in remote.events(long)][-1] == "cancelled"
    with pytest.raises(PromptError, match="cancelled there"):
        remote.wait(long)
    assert json.loads(asked(studio_port, "GET", "/api/jobs")[1])["jobs"] == []


def test_what_is_wrong_is_told(remote: Remote, files: dict[str, Path]) -> None:
    for request, more, told in (
        (Request(frames=8), {}, "the nearest is 9 frames"),
        (Request(prompt="a " * 600), {}, "the prompt takes"),
        (Request(), {"model": "none"}, "there are small, large"),
        (Request(), {"guidance": -1.0}, "guidance = -1.0: it must be"),
        (Request(), {"gudance": 1.0}, "did you mean 'guidance'"),
        (Request(height=4096, width=4096), {}, "ask for a smaller size"),
        (Request(frames=4_000_001), {}, "MB here"),
        (Request(seed=2**40), {}, "seed: 0 to"),
        (Request(frames=20_001), {}, "may have 20,000 here"),
        (Request(image=files["picture.png"], video=files["clip.mp4"]), {}, "an image and a video are given"),
    ):
        with pytest.raises(PromptError, match=told):
            remote.ask(request, **more)
    files["clip.mp4"].write_bytes(b"nothing that is a video")
    with pytest.raises(PromptError, match="not a video or image"):
        Remote(remote.address).upload(files["clip.mp4"])
    files["mask.png"].write_bytes(Video(np.zeros((1, 20, 30, 3), np.uint8), 0).encode(".png"))
    with pytest.raises(PromptError, match="the mask is black everywhere"):
        remote.wait(remote.ask(Request(image=files["picture.png"], mask=files["mask.png"])))


def test_a_server_that_comes_back_has_its_clips(
    make_studio: Callable[..., Any], remote: Remote, tmp_path: Path
) -> None:
    clip = remote.wait(remote.ask(Request(prompt="a robot", seed=3)))
    (tmp_path / "clips" / "gone.json").write_text(json.dumps(clip | {"id": "gone"}))  # of a kill in between
    for name, text in (("damaged", "{"), ("others", "[1]"), ("moved", json.dumps(clip)), ("half", '{"id": "half"}')):
        (tmp_path / "clips" / f"{name}.json").write_text(text)
    for name, text in (("damaged", "{"), ("others", "[]"), ("half", '{"id": "half"}')):
        (tmp_path / "uploads" / f"{name}.json").write_text(text)
    again = make_studio()
    assert again.history.all() == [clip]
    assert again.history.file(clip["id"], "rgb") == remote.frames(clip).tobytes()


def test_one_socket_tells_of_many(studio_port: int, remote: Remote) -> None:
    body = json.dumps({"prompt": "a robot", "count": 3, "cfg": 2}).encode()
    jobs = [job["id"] for job in json.loads(asked(studio_port, "POST", "/api/jobs", body)[1])["jobs"]]
    ended = {}
    with connect(f"ws://127.0.0.1:{studio_port}/api/live") as socket:
        socket.send(json.dumps({"watch": [*jobs, "nobody"]}))
        while len(ended) < 4:
            event = json.loads(socket.recv(300))
            if event["event"] in ("done", "unknown"):
                ended[event["job"]] = event
    assert ended.pop("nobody")["event"] == "unknown"
    assert [ended[job]["clip"]["asked"]["seed"] for job in jobs] == [0, 1, 2]
    assert {ended[job]["clip"]["asked"]["guidance"] for job in jobs} == {2.0}


def test_what_is_over_leaves_room_on_a_socket(
    studio_port: int, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vpoet.serve.api.WATCHED", 2)
    with connect(f"ws://127.0.0.1:{studio_port}/api/live") as socket:
        for seed in range(4):
            socket.send(json.dumps({"watch": [remote.ask(Request(prompt="a robot", frames=1, seed=seed))]}))
            while json.loads(socket.recv(300))["event"] != "done":
                pass


def test_the_api_describes_itself(studio_port: int) -> None:
    told = json.loads(asked(studio_port, "GET", "/api")[1])
    fields = told["components"]["schemas"]["Question"]["properties"]
    assert {"prompt", "image", "mask", "outpaint", "seed", "guidance", "model", "count"} <= set(fields)
    for path in ("/api/models", "/api/clips", "/api/jobs"):
        assert "get" in told["paths"][path]
        assert asked(studio_port, "GET", path)[0] == 200


def test_a_world_is_played_on_the_same_server(
    samplers: dict[str, Model],
    make_studio: Callable[..., Any],
    open_worlds: Callable[..., Any],
    serving: Callable[..., Any],
) -> None:
    from vpoet.serve.app import studio_page
    from vpoet.serve.play import House

    studio = make_studio()
    about = {"model": "toy", "world": "", "seed": 3, "prompt": "", "name": "toy", "height": 32, "width": 32}
    house = House(open_worlds, about, 50.0, studio.turns)
    with serving(lambda port: studio_page(studio, house, "toy", {"port": port})) as port:
        assert json.loads(asked(port, "GET", "/api/models")[1])["plays"] == "toy"
        for path in ("/play.html", "/play.js"):
            assert asked(port, "GET", path)[0] == 200
        remote = Remote(f"http://127.0.0.1:{port}")
        with connect(f"ws://127.0.0.1:{port}/play") as socket:
            assert json.loads(socket.recv(300))["say"] == "hello"
            clip = remote.wait(remote.ask(Request(prompt="a robot", seed=3)))  # both use the machine in turns
            while isinstance(socket.recv(300), str):
                pass
    wanted = samplers["small"].sample("a robot", seed=3).frames
    assert studio.history.file(clip["id"], "rgb") == wanted.tobytes()


def test_no_field_of_a_request_that_is_served_names_a_file() -> None:
    from vpoet.generate.fields import declared, written
    from vpoet.serve.served import CLIPS, fields_served

    paths = {name for name, field in declared(Request).items() if written(field) is Path}
    assert paths & fields_served().keys() == set(CLIPS)
