"""Fetching from a hub and sending to it: hashes, stopped downloads, and every way in which a hub says no."""

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vpoet import hub
from vpoet.errors import BackendError, ConfigError, HashMismatch, HubError, OutputError, VpoetError

FILES = {
    "config.yaml": b"a: 1\n",
    "model.safetensors": bytes(range(256)) * 20_000,
    "README.md": b"---\ntags: [a]\n---\n",
}
PARTS = ("config.yaml", "model.safetensors")
LARGE = hashlib.sha256(FILES["model.safetensors"]).hexdigest()
SOMEONE = hub.address("someone/model")


def fetched(address: str = "hf://someone/model") -> dict[str, bytes]:
    folder = hub.fetch(hub.address(address), PARTS)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_asked_for_is_fetched_once_and_nothing_else(server: Any) -> None:
    server.commit("someone/model", FILES)
    assert fetched() == {name: FILES[name] for name in PARTS}
    assert fetched() == {name: FILES[name] for name in PARTS}
    assert server.sent == [(LARGE, 0)]


def test_a_revision_is_its_own_state(server: Any) -> None:
    first = server.commit("someone/model", FILES)
    server.commit("someone/model", {"config.yaml": b"a: 2\n"})
    assert fetched(f"hf://someone/model@{first}")["config.yaml"] == b"a: 1\n"
    assert fetched()["config.yaml"] == b"a: 2\n"
    with pytest.raises(HubError, match="no such branch, tag or commit"):
        fetched("hf://someone/model@v9")


def test_a_path_has_made_one_slash_of_two(server: Any) -> None:
    server.commit("someone/model", FILES)
    assert (hub.local(Path("hf://someone/model"), PARTS) / "config.yaml").read_bytes() == FILES["config.yaml"]
    assert hub.local("runs/model", PARTS) == Path("runs/model")


def test_a_download_that_broke_off_goes_on_at_its_byte(server: Any) -> None:
    server.commit("someone/model", FILES)
    server.go_on.set()  # the server ends the line instead of waiting
    server.halt_after = 2_000_000
    assert fetched()["model.safetensors"] == FILES["model.safetensors"]
    assert [first for _, first in server.sent] == [0, 2_000_000, 4_000_000]


@pytest.mark.parametrize("name", PARTS)
def test_a_wrong_hash_is_refused_and_not_kept(server: Any, name: str) -> None:
    server.commit("someone/model", FILES)
    server.corrupt = {name}
    with pytest.raises(HashMismatch, match=name):
        fetched()
    server.corrupt = set()
    assert fetched() == {name: FILES[name] for name in PARTS}


def test_a_file_that_was_changed_in_the_cache_is_refused_and_comes_again(server: Any, monkeypatch: Any) -> None:
    server.commit("someone/model", FILES)
    fetched()
    for offline in (False, True):
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)
        (hub.fetch(SOMEONE, PARTS) / "model.safetensors").write_bytes(b"x" + FILES["model.safetensors"][1:])
        with pytest.raises(HashMismatch, match=r"model\.safetensors is not the hub's: SHA-256"):
            fetched()
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        assert fetched() == {name: FILES[name] for name in PARTS}


def test_offline_the_cache_alone_is_read(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    server.commit("someone/model", FILES)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="HF_HUB_OFFLINE is set"):
        fetched()
    assert server.sent == []
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    fetched()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert fetched() == {name: FILES[name] for name in PARTS}
    assert len(server.sent) == 1
    with pytest.raises(HubError, match="HF_HUB_OFFLINE is set"):
        hub.send(SOMEONE, FILES, "more", private=False)


def test_without_a_line_the_cache_does_or_the_hub_is_named(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    server.commit("someone/model", FILES)
    fetched()
    for name in ("ENDPOINT", "HUGGINGFACE_CO_URL_TEMPLATE"):
        monkeypatch.setattr(f"huggingface_hub.constants.{name}", "http://127.0.0.1:9")
    assert fetched() == {name: FILES[name] for name in PARTS}
    with pytest.raises(HubError, match=r"http://127\.0\.0\.1:9 can't be reached"):
        fetched("hf://someone/other")
    with pytest.raises(HubError, match=r"http://127\.0\.0\.1:9 can't be reached"):
        hub.send(SOMEONE, FILES, "more", private=False)


def test_who_may_not_is_told(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(HubError, match=r"no such repository at http.*, or a private one"):
        fetched()
    hub.send(SOMEONE, FILES, "first", private=True)
    assert server.private == {"someone/model"}
    monkeypatch.setenv("HF_TOKEN", "hf_of_a_stranger")
    with pytest.raises(HubError, match="or a private one of others; `hf auth login`, or HF_TOKEN, says who you are"):
        fetched()
    with pytest.raises(HubError, match=r"you may not do that \(403\)"):
        hub.send(SOMEONE, FILES, "second", private=False)


def test_what_is_sent_lies_there_and_large_files_are_sent_once(server: Any, tmp_path: Path) -> None:
    path = tmp_path / "w"
    path.write_bytes(FILES["model.safetensors"])
    sent = FILES | {"model.safetensors": path}
    commit, page = hub.send(SOMEONE, sent, "first", private=False)
    assert page == f"{server.url}/someone/model"
    assert server.files["someone/model"][commit] == FILES
    again, _ = hub.send(SOMEONE, sent | {"README.md": b"---\ntags: [b]\n---\n"}, "second", private=False)
    assert server.files["someone/model"][again] == FILES | {"README.md": b"---\ntags: [b]\n---\n"}
    assert hub.send(SOMEONE, sent | {"README.md": b"---\ntags: [b]\n---\n"}, "third", private=False)[0] == again
    assert server.taken == [LARGE]


def test_what_arrived_otherwise_than_it_was_sent_is_refused(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = server.commit
    monkeypatch.setattr(server, "commit", lambda repo, files: kept(repo, files | {"config.yaml": b"a: 9\n"}))
    with pytest.raises(HashMismatch, match=r"config\.yaml did not arrive as it was sent: git hash"):
        hub.send(SOMEONE, FILES, "first", private=False)
    monkeypatch.setattr(server, "commit", lambda repo, files: kept(repo, {"other": b"a: 9\n"}))
    with pytest.raises(HashMismatch, match="it is not there"):
        hub.send(hub.address("someone/else"), FILES, "first", private=False)


def test_a_repository_without_a_model_is_told(server: Any) -> None:
    server.commit("someone/model", {"README.md": b"#"})
    with pytest.raises(HubError, match=r"has none of config\.yaml, model\.safetensors"):
        fetched()


def test_a_disk_that_refuses_is_no_fault_of_the_hub(server: Any, full_disk: Callable[[int], None]) -> None:
    server.commit("someone/model", FILES)
    full_disk(1_000_000)
    with pytest.raises(OutputError, match="File too large"):
        fetched()


@pytest.mark.parametrize(
    "text", ["", "model", "a/b/c", "../..", "hf://", "hf:/", "a b/c", "hf://a/b@", "a/\n", "a/b\0", "-/-"]
)
def test_what_is_no_address_is_refused(server: Any, text: str) -> None:
    with pytest.raises(VpoetError):
        hub.fetch(hub.address(text), PARTS)
    assert server.sent == []


def test_a_push_goes_to_the_main_branch() -> None:
    with pytest.raises(ConfigError, match="leave out @v1"):
        hub.repository("someone/model@v1")


def test_the_extra_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(BackendError, match=r"pip install 'vpoet\[hub\]'"):
        fetched()
