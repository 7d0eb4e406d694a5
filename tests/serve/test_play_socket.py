"""A game over a real websocket, without a browser."""

import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from vpoet.media.video import Video
from vpoet.serve.film import played
from vpoet.serve.keys import Log, Script, Turn
from vpoet.serve.messages import FILM, FRAME
from vpoet.serve.play import MOST
from vpoet.serve.worlds import Worlds

HEAD = np.dtype(
    [("kind", "u1"), ("count", "u1"), ("h", "<u2"), ("w", "<u2"), ("number", "<u4"), ("at", "<u4"), ("nats", "<f4")]
)


class Page:
    """What a page does."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.hello = self.until("hello")
        self.until("begun")

    def tell(self, **message: Any) -> None:
        self.socket.send(json.dumps(message))

    def until(self, say: str) -> dict[str, Any]:
        """The next message of this kind."""
        while True:
            message = self.socket.recv(300)
            if isinstance(message, str):
                told: dict[str, Any] = json.loads(message)
                if told["say"] == say:
                    return told

    def frame(self) -> tuple[dict[str, Any], list[np.ndarray]]:
        while True:
            message = self.socket.recv(300)
            if isinstance(message, bytes) and message[0] == FRAME:
                (head,) = np.frombuffer(message[: HEAD.itemsize], HEAD)
                told = {name: head[name].item() for name in HEAD.names or ()}
                size = told["h"] * told["w"] * 3
                rest = np.frombuffer(message[HEAD.itemsize + 2 * told["count"] :], np.uint8)
                assert len(rest) == told["count"] * size
                return told, [part.reshape(told["h"], told["w"], 3) for part in np.split(rest, told["count"])]

    def is_closed_by(self, message: str, times: int) -> bool:
        """Whether the server ends the game where a message comes so often."""
        try:
            for _ in range(times):
                self.socket.send(message)
            for _ in range(1000):
                self.socket.recv(300)
        except ConnectionClosed:
            return True
        return False

    def film(self) -> tuple[dict[str, Any], bytes]:
        record = self.until("film")["record"]
        message = self.socket.recv(300)
        assert isinstance(message, bytes)
        assert message[0] == FILM
        return record, message[1:]


@contextmanager
def opened(port: int) -> Iterator[Page]:
    with connect(f"ws://127.0.0.1:{port}/play") as socket:
        yield Page(socket)


def test_keys_change_frames_and_come_back_in_the_first_that_heeds_them(served: int) -> None:
    with opened(served) as page:
        assert page.hello["actions"][:3] == ["noop", "left", "right"]
        assert (page.hello["shows"], page.hello["fps"]) == (["real", "model"], 50.0)
        head, first = page.frame()
        assert (head["number"], head["at"]) == (0, 0)
        page.tell(do="press", key=2, at=17)
        while head["at"] != 17:
            head, pictures = page.frame()
        assert not np.array_equal(pictures[0], first[0])


def test_a_film_of_the_page_is_made_again_by_its_record(served: int, open_worlds: Callable[..., Worlds]) -> None:
    with opened(served) as page:
        page.tell(do="pause", on=True)
        page.tell(do="restart", seed=6, prompt="a robot on snow")
        told = page.until("begun")
        assert (told["seed"], told["prompt"]) == (6, "a robot on snow")
        page.tell(do="record", on=True, view="both")
        page.until("recording")
        page.tell(do="press", key=2, at=1)
        page.tell(do="pause", on=False)
        while page.frame()[0]["number"] < 5:
            pass
        page.tell(do="release", key=2)
        while page.frame()[0]["number"] < 9:
            pass
        page.tell(do="record", on=False, view="both")
        record, mp4 = page.film()
    assert record["keys"][0].startswith("right ")
    assert (record["seed"], record["first"], record["whole"]) == (6, 0, True)
    film = Video.read(io.BytesIO(mp4).getvalue())
    assert len(film) == record["frames"] >= 9
    turns = [Turn(("noop", "left", "right").index(n), int(s)) for n, s in (line.split() for line in record["keys"])]
    worlds = open_worlds()
    again = list(played(worlds, Script(tuple(turns), {}), Log(worlds.actions), 6, "a robot on snow"))
    assert len(again) == len(film)
    real = film.frames[:, :128, :128][:, 2::4, 2::4]
    wanted = np.stack([shown.pictures[0] for shown in again])
    assert np.abs(real.astype(int) - wanted).mean() < 6  # as near as H.264 brings it


def test_a_prompt_is_told_mid_way_and_a_wrong_one_does_no_harm(served: int) -> None:
    with opened(served) as page:
        page.tell(do="prompt", text="a hero on sand")
        assert page.until("told")["prompt"] == "a hero on sand"
        page.tell(do="prompt", text=58 * "antidisestablish ")
        assert "too long" in page.until("error")["text"]
        page.tell(do="restart", seed=1, prompt="xyzzy")
        assert "names nobody and no place" in page.until("error")["text"]
        page.tell(do="record", on=True, view="both")
        page.until("recording")
        number = page.frame()[0]["number"]
        assert page.frame()[0]["number"] == number + 1


def test_a_pause_holds_the_world_and_the_pace_is_the_pages(served: int) -> None:
    with opened(served) as page:
        page.tell(do="pause", on=True)
        page.tell(do="restart", seed=2, prompt="")
        page.until("begun")
        assert page.frame()[0]["number"] == 0
        page.tell(do="press", key=1, at=5)
        with pytest.raises(TimeoutError):
            page.socket.recv(0.3)
        page.tell(do="pace", fps=240)
        page.tell(do="pause", on=False)
        assert [page.frame()[0]["number"] for _ in range(3)] == [1, 2, 3]


def test_nonsense_is_told_and_too_much_of_it_ends_the_game_and_no_other(served: int) -> None:
    with opened(served) as other:
        with opened(served) as page:
            for message in ("x", '{"do": "press", "key": 6, "at": 1}', "[" * 1000):
                page.socket.send(message)
                assert page.until("error")["text"]
            page.socket.send(b"\0" * 100)
            page.until("error")
            assert page.is_closed_by("{}", 1000)
        with opened(served) as page:
            assert page.is_closed_by("x" * 100_000, 1)
        number = other.frame()[0]["number"]
        assert other.frame()[0]["number"] > number


def test_there_are_so_many_games_and_one_that_closes_makes_room(served: int) -> None:
    def one_more() -> dict[str, Any]:
        with connect(f"ws://127.0.0.1:{served}/play") as socket:
            told: dict[str, Any] = json.loads(socket.recv(300))
            return told

    sockets = [connect(f"ws://127.0.0.1:{served}/play") for _ in range(MOST)]
    pages = [Page(socket) for socket in sockets]
    assert "close one of them" in one_more()["text"]
    assert all(page.frame()[0]["count"] == 2 for page in pages)
    for socket in sockets:
        socket.close()
    while one_more()["say"] != "hello":  # the server notices a moment later
        pass
