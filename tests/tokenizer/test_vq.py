"""VQ: parity with vector-quantize-pytorch, start and restart of codes, exact resuming, two processes as one."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import vector_quantize_pytorch

from vpoet.tokenizer import vq as module
from vpoet.tokenizer.quantiser import Quantised
from vpoet.tokenizer.vq import VQ


def started(codebook: int, width: int = 8, **options: float) -> VQ:
    """A VQ whose points stay the random ones that it was made with, instead of the first batch's."""
    vq = VQ(codebook, width, **{"commitment": 0.25, **options})
    vq.initialised.fill_(True)
    return vq


def state(vq: VQ) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in vq.state_dict().items()}


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(("codebook", "width", "decay"), [(256, 8, 0.8), (1024, 5, 0.99), (300, 3, 0.5)])
def test_parity_with_vector_quantize_pytorch(codebook: int, width: int, decay: float) -> None:
    """Codes, points, loss and its gradient, counts and codebook over ten steps, and codes of a pure function after."""
    torch.manual_seed(0)
    vq = started(codebook, width, decay=decay, commitment=0.3, dead=0)
    reference = vector_quantize_pytorch.VectorQuantize(
        width, codebook, decay=decay, eps=1e-5, threshold_ema_dead_code=0, commitment_weight=0.3, rotation_trick=False
    )
    reference._codebook.embed.copy_(vq.codebook[None])
    reference._codebook.embed_avg.copy_(vq.codebook[None])
    for step in range(10):
        z = (torch.randn(2, 400, width) + 0.1 * step).requires_grad_()
        codes, points, _, loss, _ = vq(z)
        expected_points, expected_codes, expected_loss = reference(z)
        assert torch.equal(codes, expected_codes)
        torch.testing.assert_close(points, expected_points)
        torch.testing.assert_close(loss, expected_loss.squeeze())
        weight = torch.randn_like(z)
        (gradient,) = torch.autograd.grad((points * weight).sum() + loss, z)
        (expected,) = torch.autograd.grad((expected_points * weight).sum() + expected_loss.squeeze(), z)
        torch.testing.assert_close(gradient, expected)
        torch.testing.assert_close(vq.counts, reference._codebook.cluster_size[0])
        torch.testing.assert_close(vq.codebook, reference._codebook.embed[0], rtol=1e-4, atol=1e-5)
    z = torch.randn(3, 200, width)
    codes, points, _, loss, _ = vq.eval()(z)
    expected_points, expected_codes, _ = reference.eval()(z)
    assert torch.equal(codes, expected_codes)
    torch.testing.assert_close(points, expected_points, rtol=1e-4, atol=1e-5)
    assert loss == 0


def test_codes_are_the_nearest_and_points_are_theirs() -> None:
    torch.manual_seed(0)
    vq = started(1000).eval()
    z = torch.randn(3, 4, 5, 8)
    codes, points, _, _, use = vq(z)
    distances = (z.unsqueeze(-2) - vq.codebook).square().sum(-1)
    assert torch.equal(codes, distances.argmin(-1))
    assert torch.equal(points, vq.codes_to_points(codes))
    assert use == pytest.approx(len(codes.unique()) / 60)
    assert (vq.levels, vq.size, vq.width, VQ(256, commitment=0).width) == ((1000,), 1000, 8, 8)
    codes = torch.arange(1000)
    assert torch.equal(vq(vq.codes_to_points(codes)).codes, codes)
    assert torch.equal(vq.digits_to_codes(vq.codes_to_digits(codes)), codes)


def test_the_search_in_chunks_is_the_search_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    vq = started(512).eval()
    z = torch.randn(333, 8)
    expected = vq(z).codes
    sizes = []
    addmm = torch.addmm
    monkeypatch.setattr(module, "DISTANCES", 5000)
    monkeypatch.setattr(
        torch, "addmm", lambda *args, **kwargs: sizes.append(args[1].shape[0]) or addmm(*args, **kwargs)
    )
    assert torch.equal(vq(z).codes, expected)
    assert sizes == [9] * 37


def test_the_largest_codebook_is_searched_in_bounded_pieces() -> None:
    torch.manual_seed(0)
    vq = started(2**18).eval()
    codes = torch.randint(2**18, (100,))
    assert torch.equal(vq(vq.codes_to_points(codes)).codes, codes)
    assert module.DISTANCES * 4 <= 2**26


def test_the_first_batch_gives_the_points() -> None:
    torch.manual_seed(0)
    vq = VQ(64, commitment=0.25)
    z = torch.randn(10, 20, 8)
    vq.eval()(z)
    assert not vq.initialised
    vq.train()(z)
    assert vq.initialised
    same = (vq.codebook[:, None] == z.view(-1, 8)).all(-1)
    assert same.any(1).all()  # every point is a vector
    assert same.any(0).sum() == 64  # and another one
    assert torch.equal(vq.counts, torch.full((64,), 200 / 64))
    before = state(vq)
    vq(z)
    assert not torch.equal(vq.codebook, before["codebook"])


def test_a_small_first_batch_gives_all_its_vectors_and_later_ones_the_rest() -> None:
    torch.manual_seed(0)
    vq = VQ(64, commitment=0.25)
    z = torch.randn(20, 8)
    codes, points, _, _, use = vq(z)
    torch.testing.assert_close(points, z)
    assert use == 1
    assert len(vq.codebook.unique(dim=0)) == len(codes.unique()) == 20
    assert vq.counts.count_nonzero() == 20
    for _ in range(3):
        vq(torch.randn(20, 8))
    assert len(vq.codebook.unique(dim=0)) == 64
    assert vq.counts.min() > 0


def test_dead_codes_come_back_to_life() -> None:
    """Vectors around 5, all points but one around -5: without restarts that one takes them all."""
    used = {}
    for dead in (0.0, 0.03):
        torch.manual_seed(0)
        vq = started(32, decay=0.9, dead=dead)
        vq.codebook -= 5
        vq.codebook[7] = 5
        for _ in range(60):
            vq(5 + torch.randn(256, 8))
        used[dead] = len(vq.eval()(5 + torch.randn(1000, 8)).codes.unique())
    assert used == {0.0: 1, 0.03: 32}


def test_a_restarted_code_is_a_vector_of_the_batch_with_a_mean_count() -> None:
    torch.manual_seed(0)
    vq = started(16, decay=0.5, dead=0.1)
    vq.codebook[3:] += 100
    vq.counts[3:] = torch.linspace(0.01, 0.02, 13)  # below the threshold, the first codes the lowest
    z = torch.randn(8, 8)
    vq(z)
    torch.testing.assert_close(vq.codebook[3:11].sort(0).values, z.sort(0).values, rtol=0, atol=0)
    assert (vq.codebook[11:] > 50).all()  # five wait: there were but eight vectors
    assert (vq.counts[3:11] == vq.counts[3]).all()
    assert vq.counts[11:].max() < 0.1 * vq.counts[3] < vq.counts[:3].max()
    vq(z)
    assert (vq.codebook < 50).all()


def test_evaluation_changes_nothing() -> None:
    torch.manual_seed(0)
    vq = started(64, dead=0.9).eval()
    z = torch.randn(100, 8)
    before, random = state(vq), torch.get_rng_state()
    codes, points, _, loss, _ = vq(z)
    again = vq(z)
    assert torch.equal(codes, again.codes)
    assert torch.equal(points, again.points)
    assert loss == 0
    assert equal(before, state(vq))
    assert torch.equal(random, torch.get_rng_state())


@pytest.mark.parametrize("stop", [0, 1, 4])
def test_training_resumes_exactly_from_state_dict_and_random_state(stop: int) -> None:
    """With restarts at every step, and also from before the first batch."""
    torch.manual_seed(0)
    batches = torch.randn(8, 50, 8)
    vq = VQ(64, commitment=0.25, decay=0.8, dead=0.3)
    for batch in batches[:stop]:
        vq(batch)
    saved, random = state(vq), torch.get_rng_state()
    expected = [vq(batch) for batch in batches[stop:]]
    assert not torch.equal(random, torch.get_rng_state())  # else no restart was drawn
    resumed = VQ(64, commitment=0.25, decay=0.8, dead=0.3)
    resumed.load_state_dict(saved)
    assert equal(saved, state(resumed))
    torch.set_rng_state(random)
    for batch, before in zip(batches[stop:], expected, strict=True):
        now: Quantised = resumed(batch)
        assert torch.equal(now.codes, before.codes)
        assert torch.equal(now.points, before.points)
    assert equal(state(vq), state(resumed))


def test_autocast_and_bf16_do_not_change_codes_or_updates() -> None:
    torch.manual_seed(0)
    vq, other = started(256), started(256)
    other.load_state_dict(vq.state_dict())
    z = torch.randn(500, 8).bfloat16()
    expected = vq(z.float())
    with torch.autocast("cpu", torch.bfloat16):
        codes, points, _, loss, _ = other(z)
    assert torch.equal(codes, expected.codes)
    assert torch.equal(loss, expected.loss)
    assert (points.dtype, loss.dtype, expected.points.dtype) == (torch.bfloat16, torch.float32, torch.float32)
    assert equal(state(vq), state(other))
    assert vq.codebook.dtype == torch.float32


def train_process(rank: int, folder: Path) -> None:
    """One of two: counting alone on its half of each batch; then a start and restarts on different vectors."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.manual_seed(0)
    counting = started(32, dead=0)
    for batch in torch.randn(3, 2, 100, 8):
        counting(batch[rank])
    torch.manual_seed(rank)
    restarting = VQ(32, commitment=0.25, decay=0.5, dead=0.3)
    states = [state(counting)]
    for _ in range(4):
        restarting(torch.randn(20 + rank, 8))
        states.append(state(restarting))
    torch.save(states, folder / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_hold_the_codebook_of_one_that_sees_all(tmp_path: Path) -> None:
    torch.multiprocessing.start_processes(train_process, (tmp_path,), nprocs=2, start_method="fork")
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    torch.manual_seed(0)
    alone = started(32, dead=0)
    for batch in torch.randn(3, 2, 100, 8):
        alone(batch)
    for one, other in zip(first, second, strict=True):
        assert equal(one, other)
    assert first[1]["initialised"]
    for name, tensor in state(alone).items():
        torch.testing.assert_close(first[0][name], tensor)
