"""Options of the video tokenizer's training, on the class itself; tests/programs runs the program.

Every network here is tiny and in fp32, so that equal means equal to rounding.
"""

import copy
import functools
import json
import os
import shutil
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vpoet.arrays import Frames
from vpoet.errors import ConfigError
from vpoet.processes import Processes
from vpoet.tokenizer.autoencoder import AutoencoderConfig
from vpoet.tokenizer.imported.cosmos import Cosmos, CosmosConfig
from vpoet.tokenizer.layers import Block
from vpoet.tokenizer.quantiser import QuantiserConfig
from vpoet.tokenizer.video import VideoTokenizer
from vpoet.training.codec import checkpoint
from vpoet.training.codec.adversarial import AdversarialConfig
from vpoet.training.codec.checkpoint import tensors_of
from vpoet.training.codec.loss import LossConfig, still_cells, still_error
from vpoet.training.codec.recipe import TokenizerOptimizerConfig, VideoTokenizerRecipe
from vpoet.training.codec.training import TokenizerTraining


def recipe(**changes: Any) -> VideoTokenizerRecipe:
    model = AutoencoderConfig(
        widths=[8, 8, 8],
        encoder_blocks=[0, 1, 0],
        decoder_blocks=[1, 0, 1],
        quantiser=changes.pop("quantiser", QuantiserConfig(levels=[5, 5, 5])),
    )
    return VideoTokenizerRecipe(**{"run": "x", "data": ["x"], "steps": 50, "model": model, "dtype": "fp32"} | changes)


def per_frame() -> AutoencoderConfig:
    return AutoencoderConfig(
        time_stride=1,
        widths=[16, 16],
        encoder_blocks=[1, 1],
        decoder_blocks=[1, 1],
        quantiser=QuantiserConfig(levels=[8, 8, 8]),
    )


def clips(count: int, frames: int = 5, seed: int = 0, size: int = 16) -> Frames:
    return np.random.default_rng(seed).integers(0, 256, (count, frames, size, size, 3), dtype=np.uint8)


def weights(training: TokenizerTraining) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in training.model.state_dict().items()}


def test_images_are_trained_on_beside_the_clips_and_count_as_much() -> None:
    """The gradient is the mean over clips and images: here over two of each, in two forms."""
    gradients = []
    for batches in [(clips(2), clips(2, frames=1, seed=1)), (clips(2),), (clips(2, frames=1, seed=1),)]:
        one = TokenizerTraining(recipe(loss=LossConfig(edges=0)))
        for optimizer in one.optimizers:
            optimizer.step = lambda: None  # type: ignore[assignment,method-assign]
        one.recipe.optimizer.clip = 1e9
        one.update(*batches)
        gradients.append(torch.cat([p.grad.flatten() for p in one.model.parameters() if p.grad is not None]))
    both, videos, images = gradients
    torch.testing.assert_close(both, (videos + images) / 2, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["fsq", "lfq", "vq"])
def test_every_quantiser_learns_and_goes_on_bit_for_bit(kind: str, tmp_path: Path) -> None:
    settings = recipe(quantiser=QuantiserConfig(kind=kind, codebook=256), ema=0.5)
    training = TokenizerTraining(settings)
    batch = clips(4)
    errors = [training.update(batch)["l2"] for _ in range(6)]
    training.save(tmp_path, [{"place": 7}])
    expected = [training.update(batch) for _ in range(3)]
    again = TokenizerTraining(settings)
    assert again.restore(tmp_path) == [{"place": 7}]
    assert [again.update(batch) for _ in range(3)] == expected
    assert errors[-1] < errors[0]
    tokenizer = VideoTokenizer(again.average)
    tokenizer.save(tmp_path / "tokenizer")
    codes = tokenizer.encode(batch[0])
    assert np.array_equal(VideoTokenizer.load(tmp_path / "tokenizer").decode(codes), tokenizer.decode(codes))


def test_a_second_stage_begins_with_the_weights_and_keeps_encoder_and_codes(tmp_path: Path) -> None:
    first = TokenizerTraining(recipe(seed=3))
    first.update(clips(2))
    VideoTokenizer(first.average).save(tmp_path)
    begun = VideoTokenizer.load(tmp_path)
    second = TokenizerTraining(recipe(begin=str(tmp_path), train="decoder"))
    before = weights(second)
    assert all(torch.equal(value, begun.model.state_dict()[name]) for name, value in before.items())
    for _ in range(3):
        second.update(clips(2, seed=1))
    changed = {name.split(".")[0] for name, value in weights(second).items() if not torch.equal(value, before[name])}
    assert changed == {"decoder"}
    ended = second.exported()
    assert ended.hash != begun.hash
    assert ended.codes == begun.codes == begun.hash
    ended.save(tmp_path / "ended")
    loaded = VideoTokenizer.load(tmp_path / "ended")
    assert (loaded.hash, loaded.codes) == (ended.hash, begun.hash)
    assert np.array_equal(ended.encode(clips(1)[0]), begun.encode(clips(1)[0]))
    assert not np.array_equal(ended.decode(ended.encode(clips(1)[0])), begun.decode(begun.encode(clips(1)[0])))


def test_a_second_stage_adds_vectors_of_codes_to_a_decoder_without_and_keeps_those_of_one_with(tmp_path: Path) -> None:
    VideoTokenizer(TokenizerTraining(recipe(seed=3)).average).save(tmp_path)
    richer = replace(recipe().model, code_vectors=True)
    second = TokenizerTraining(recipe(begin=str(tmp_path), train="decoder", model=richer))
    second.update(clips(2))
    vectors = second.model.decoder.code_vectors
    assert vectors is not None
    assert vectors.weight.abs().sum() > 0
    assert second.exported().codes == VideoTokenizer.load(tmp_path).hash
    second.exported().save(tmp_path / "second")
    third = TokenizerTraining(recipe(begin=str(tmp_path / "second"), train="decoder", model=richer))
    assert torch.equal(
        third.model.state_dict()["decoder.code_vectors.weight"], second.average.decoder.code_vectors.weight
    )
    with pytest.raises(ConfigError, match=r"model.code_vectors: True, now False"):
        TokenizerTraining(recipe(begin=str(tmp_path / "second"), train="decoder"))


def test_codes_keep_their_name_only_while_the_encoder_is_the_same_to_the_bit(tmp_path: Path) -> None:
    VideoTokenizer(TokenizerTraining(recipe(seed=3)).average).save(tmp_path)
    whole = TokenizerTraining(recipe(begin=str(tmp_path)))
    whole.update(clips(2))
    rounded = TokenizerTraining(recipe(begin=str(tmp_path), train="decoder", export_dtype="fp16"))
    for training in (whole, rounded):
        tokenizer = training.exported()
        assert tokenizer.codes == tokenizer.hash


def test_an_imported_tokenizer_is_not_trained_further(tmp_path: Path) -> None:
    small = CosmosConfig(time_stride=4, space_stride=8, patch=2, channels=4, widths=[8, 8, 8], blocks=1, latent=4)
    VideoTokenizer(Cosmos(small)).save(tmp_path)
    with pytest.raises(ConfigError, match="is an imported tokenizer"):
        TokenizerTraining(recipe(begin=str(tmp_path)))


def test_beginning_with_another_network_names_the_difference(tmp_path: Path) -> None:
    VideoTokenizer(TokenizerTraining(recipe()).average).save(tmp_path)
    with pytest.raises(ConfigError, match=r"model.quantiser.levels: \[5, 5, 5\], now \[7, 5, 5\]"):
        TokenizerTraining(recipe(begin=str(tmp_path), quantiser=QuantiserConfig(levels=[7, 5, 5])))


def test_the_decoder_alone_needs_something_to_decode() -> None:
    with pytest.raises(ConfigError, match="begin=FOLDER"):
        recipe(train="decoder")
    with pytest.raises(ConfigError, match="choose one of all, decoder"):
        recipe(train="encoder")


def test_changes_of_a_cell_s_point_are_in_the_loss_and_cost_nothing_where_all_holds_still() -> None:
    still = np.repeat(clips(2, frames=1), 5, axis=1)
    for batch in (clips(2), still):
        with_changes, without = (TokenizerTraining(recipe(loss=LossConfig(changes=weight))) for weight in (3.0, 0.0))
        codes = VideoTokenizer(with_changes.average).encode_batch(batch)
        points = with_changes.model.quantiser.codes_to_points(torch.from_numpy(codes))
        logged, plain = with_changes.update(batch, clips(1, frames=1)), without.update(batch, clips(1, frames=1))
        assert logged["changes"] == pytest.approx(float((points[:, 1:] - points[:, :-1]).abs().mean()), abs=1e-6)
        assert (logged["changes"] == 0) == (batch is still)
        assert logged["loss"] == pytest.approx(plain["loss"] + 3 * logged["changes"], rel=1e-5)
        assert "changes" not in plain


def test_cells_hold_still_whose_own_pixels_do_not_change() -> None:
    """From the last frame of the cell before, here three frames before, to each of the cell's own; in any channel."""
    video = torch.zeros(1, 3, 7, 16, 24)
    assert still_cells(video, (3, 2, 3)).all()
    video[0, 1, 2, 15, 8] = 0.5  # frame 2, of the second cell in time, and back: the cell after it holds still
    expected = torch.ones(1, 2, 2, 3, dtype=torch.bool)
    expected[0, 0, 1, 1] = False
    assert torch.equal(still_cells(video, (3, 2, 3)), expected)
    video[0, 1, 3, 15, 8] = 0.5
    expected[0, 1, 1, 1] = False
    assert torch.equal(still_cells(video, (3, 2, 3)), expected)
    assert still_cells(torch.zeros(1, 3, 3, 8, 8) + 0.03 * torch.arange(3)[:, None, None], (3, 1, 1)).all(), "noise"


def test_what_holds_still_is_charged_for_straying_from_the_level_it_had_and_nothing_else_is() -> None:
    video = torch.zeros(1, 3, 3, 8, 16)
    video[:, :, 1:, :, 8:] = torch.tensor([0.5, -0.5])[:, None, None]  # the right cell changes in every frame
    latents = torch.tensor([0.0, 0.2, 0.4]).view(1, 3, 1, 1, 1).repeat(1, 1, 1, 2, 1).requires_grad_()
    error = still_error(latents, video)
    # levels before: 0 and 0; strayed by 0.2 and 0.4, of which 0.25 are free
    assert error.item() == pytest.approx((0 + 0.15**2) / 2)
    (gradient,) = torch.autograd.grad(error, latents)
    assert gradient.flatten().tolist() == pytest.approx([0, 0, 0, 0, 0.15, 0])
    across = torch.tensor([0.45, 0.55]).view(1, 2, 1, 1, 1)  # two codes, though the latents are neighbours
    assert still_error(across, video[:, :, :2, :, :8]).item() == pytest.approx(0.3**2)
    assert still_error(latents[:, :2], torch.rand(1, 3, 2, 8, 16)).item() == 0, "nothing holds still"


def test_the_penalty_has_codes_hold_still_where_pixels_do() -> None:
    """Of clips in whose upper left corner alone something moves: of the other cells' codes, fewer change with it.

    Blocks begin as the identity, of which no cell sees another: here they begin at random.
    """
    frames = np.repeat(clips(3, frames=1, size=32), 5, axis=1)
    frames[:, :, :8, :8] = clips(3, size=8)
    changed = []
    for weight in (0.0, 5.0):
        training = TokenizerTraining(recipe(loss=LossConfig(still=weight), model=per_frame(), ema=0.5))
        for block in training.model.encoder.layers:
            if isinstance(block, Block):
                torch.nn.init.normal_(block.time.linear.weight, std=0.1)
        logged = [training.update(frames) for _ in range(30)]
        assert ("still" in logged[0]) == (weight > 0)
        codes = VideoTokenizer(training.average).encode_batch(frames)
        moves = np.zeros(codes.shape[2:], np.bool_)
        moves[0, 0] = True
        changed.append(float((codes[:, 1:] != codes[:, :-1])[:, :, ~moves].mean()))
    assert changed[1] < 0.5 * changed[0]


def test_evenness_is_fsq_s_own_and_in_its_loss() -> None:
    batch = clips(2)
    logged, plain = (TokenizerTraining(recipe(loss=LossConfig(evenness=w))).update(batch)["loss"] for w in (1.0, 0.0))
    assert logged > plain + 0.01
    with pytest.raises(ConfigError, match=r"for lfq set model\.quantiser\.entropy"):
        recipe(quantiser=QuantiserConfig(kind="lfq"), loss=LossConfig(evenness=1))
    for weight in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match=rf"loss\.still = {weight}: must be a number, 0 or more"):
            LossConfig(still=weight)
    with pytest.raises(ConfigError, match=r"for lfq set loss\.changes"):
        recipe(quantiser=QuantiserConfig(kind="lfq"), loss=LossConfig(still=1))


def test_an_adversary_that_would_never_start_is_refused() -> None:
    with pytest.raises(ConfigError, match="the run ends before, at 50 steps"):
        recipe(adversarial=AdversarialConfig(weight=1, start=50))


def test_the_adversary_starts_late_moves_the_decoder_and_is_part_of_the_checkpoint(tmp_path: Path) -> None:
    settings = recipe(adversarial=AdversarialConfig(weight=0.5, start=2, width=8, layers=2))
    training, plain = TokenizerTraining(settings), TokenizerTraining(recipe())
    batch = clips(2)
    for _ in range(2):
        assert "d_loss" not in training.update(batch)
        plain.update(batch)
    same = [torch.equal(a, b) for a, b in zip(weights(training).values(), weights(plain).values(), strict=True)]
    assert all(same)
    logged = training.update(batch)
    plain.update(batch)
    assert {"adversarial", "d_loss", "d_real", "d_drawn"} <= logged.keys()
    assert not torch.equal(training.model.decoder.out.linear.weight, plain.model.decoder.out.linear.weight)
    training.save(tmp_path, [])
    expected = [training.update(batch) for _ in range(2)]
    again = TokenizerTraining(settings)
    again.restore(tmp_path)
    assert [again.update(batch) for _ in range(2)] == expected


def test_the_perceptual_part_is_in_the_loss() -> None:
    training = TokenizerTraining(recipe(loss=LossConfig(perceptual=2.0)))
    values = training.update(clips(1, size=32))
    parts = {"l1": 0.5, "l2": 10.0, "edges": 0.05, "perceptual": 2.0}
    assert values["perceptual"] > 0
    assert values["loss"] == pytest.approx(sum(weight * values[name] for name, weight in parts.items()), rel=1e-5)


def test_any_network_will_do_for_the_perceptual_part() -> None:
    seen = []

    def halves(images: torch.Tensor) -> list[torch.Tensor]:
        seen.append(images.shape)
        return [torch.nn.functional.avg_pool2d(images, 2)]

    training = TokenizerTraining(recipe(loss=LossConfig(perceptual=1.0)), halves)
    assert training.update(clips(1))["perceptual"] > 0
    assert seen == [(4, 3, 16, 16)] * 2


def test_a_run_of_two_processes_is_refused_by_one(tmp_path: Path) -> None:
    training = TokenizerTraining(recipe())
    training.processes.gather = lambda value: [value, copy.deepcopy(value)]  # type: ignore[method-assign]
    training.save(tmp_path, [])
    with pytest.raises(ConfigError, match="written by 2 processes"):
        TokenizerTraining(recipe()).restore(tmp_path)


def test_the_exported_weights_are_rounded_where_asked_and_training_is_not() -> None:
    training = TokenizerTraining(recipe(export_dtype="fp16"))
    training.update(clips(2))
    exported = training.exported().model.state_dict()
    for name, value in training.average.state_dict().items():
        assert torch.equal(exported[name], value.half().float())
    assert any(not torch.equal(exported[name], value) for name, value in training.average.state_dict().items())
    with pytest.raises(ConfigError, match="choose one of fp32, fp16"):
        recipe(export_dtype="fp8")


def half_the_batch(rank: int, folder: Path, port: int) -> None:
    os.environ.update(RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    training = TokenizerTraining(recipe(batch=4, image_batch=2))
    logged = [training.update(clips(4)[rank::2], clips(2, frames=1)[rank::2]) for _ in range(3)]
    training.save(folder, [{"rank": rank}])
    again = TokenizerTraining(recipe(batch=4, image_batch=2))
    assert again.restore(folder) == [{"rank": rank}]
    torch.save((logged, weights(training), weights(again)), folder / f"{rank}.pt")
    training.processes.leave()


def test_two_processes_with_half_the_batch_each_are_one_with_all_of_it(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    torch.multiprocessing.start_processes(half_the_batch, (tmp_path, port), nprocs=2, start_method="fork")
    alone = TokenizerTraining(recipe(batch=4, image_batch=2))
    expected = [alone.update(clips(4), clips(2, frames=1)) for _ in range(3)]
    (first, model, again), (second, other, _) = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert all(torch.equal(value, other[name]) and torch.equal(value, again[name]) for name, value in model.items())
    for name, value in weights(alone).items():
        torch.testing.assert_close(model[name], value, rtol=1e-3, atol=2e-4)
    for one, two, whole in zip(first, second, expected, strict=True):
        assert one == two | {"code_use": one["code_use"]}
        assert one["l2"] == pytest.approx(whole["l2"], rel=1e-4)
        assert one["gradient"] == pytest.approx(whole["gradient"], rel=1e-3)


def test_who_is_to_stop_stops_all() -> None:
    training = TokenizerTraining(recipe())
    training.update(clips(1))
    assert not training.stopping
    training.update(clips(1), stop=True)
    assert training.stopping


def test_a_checkpoint_of_a_recipe_without_the_keys_that_came_since_goes_on(tmp_path: Path) -> None:
    training = TokenizerTraining(recipe())
    training.save(tmp_path, [])
    path = tmp_path / "checkpoints/step-0"
    state = json.loads((path / "state.json").read_text())
    del state["recipe"]["compile"], state["recipe"]["loss"]["still"]
    shutil.rmtree(tmp_path / "checkpoints")
    checkpoint.save(
        tmp_path, state, tensors_of(*training._parts()) | {"random": {"0": torch.get_rng_state()}}, Processes()
    )
    assert TokenizerTraining(recipe()).restore(tmp_path) == []
    with pytest.raises(ConfigError, match=r"loss\.still: 0\.0, now 1\.0"):
        TokenizerTraining(recipe(loss=LossConfig(still=1))).restore(tmp_path)


def test_the_network_is_one_graph_for_the_compiler() -> None:
    training = TokenizerTraining(recipe(loss=LossConfig(evenness=1)))
    explained = torch._dynamo.explain(training.model)(torch.zeros(1, 3, 5, 16, 16))
    assert (explained.graph_count, explained.graph_break_count) == (1, 0)


def test_compiled_steps_are_the_steps_as_they_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the compiler reads them; the code that it makes of them is its own affair, and takes minutes here."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    plain, fused = (TokenizerTraining(recipe(compile=compiled)) for compiled in (False, True))
    assert plain._draw is plain.model
    for _ in range(2):
        expected, found = (one.update(clips(2), clips(1, frames=1)) for one in (plain, fused))
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-5)
    names = fused.model.state_dict().keys()
    assert names == plain.model.state_dict().keys(), "a checkpoint fits either"


def test_a_batch_that_processes_cannot_share_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Processes, "join", lambda device: Processes(rank=0, world=3))
    with pytest.raises(ConfigError, match="batch = 4: 3 processes share it evenly"):
        TokenizerTraining(recipe(batch=4))


def test_a_resumed_run_may_end_elsewhere_and_its_rate_falls_to_that_end(tmp_path: Path) -> None:
    soon = TokenizerOptimizerConfig(warmup=1)
    ours = TokenizerTraining(recipe(steps=100, optimizer=soon))
    ours.update(clips(2))
    ours.save(tmp_path, [])
    rates = {}
    for steps in (100, 10):
        again = TokenizerTraining(recipe(steps=steps, optimizer=soon))
        assert again.restore(tmp_path) == []
        again.step = 8
        rates[steps] = again.update(clips(2))["lr"]
    assert rates[10] < rates[100] / 2
