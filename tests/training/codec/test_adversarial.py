import copy
from collections.abc import Callable, Iterable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import Parameter

from vpoet.errors import ConfigError, ShapeError, VpoetError
from vpoet.training.codec import adversarial
from vpoet.training.codec.adversarial import (
    AdversarialConfig,
    Adversary,
    PatchDiscriminator,
    adaptive_weight,
    discriminator_loss,
)
from vpoet.training.codec.checkpoint import Networks, Optimizers, load_tensors, tensors_of

CPU = torch.device("cpu")


def config(**changes: float) -> AdversarialConfig:
    return AdversarialConfig(**{"weight": 0.5, "width": 8, "layers": 2, "lr": 2e-3, **changes})


def adversary(reduce: Callable[[Iterable[Parameter]], None] | None = None, **changes: float) -> Adversary:
    torch.manual_seed(0)
    return Adversary(config(**changes), CPU, reduce=reduce)


def clips(seed: int, batch: int = 2, frames: int = 5, size: int = 16) -> Tensor:
    return torch.rand(batch, 3, frames, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


class Painter(nn.Module):
    """A decoder of one layer: scales the colours of a clip."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(3, 3)

    def forward(self, video: Tensor) -> Tensor:
        out: Tensor = self.last(video.movedim(1, -1)).movedim(-1, 1)
        return out


def weights(module: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in module.parameters()]


def parts(adversary: Adversary) -> tuple[Networks, Optimizers]:
    return {"network": adversary.discriminator}, {"optimizer": adversary.optimizer}


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize(
    ("layers", "size", "logits"),
    [
        (3, (1, 16, 16), (1, 2, 2)),
        (3, (17, 24, 40), (5, 3, 5)),
        (4, (17, 16, 35), (3, 1, 2)),
        (4, (1, 16, 16), (1, 1, 1)),
        (1, (5, 17, 16), (5, 8, 8)),
    ],
)
def test_sizes_and_every_pixel_counts(layers: int, size: tuple[int, ...], logits: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    video = torch.rand(2, 3, *size, requires_grad=True)
    out = PatchDiscriminator(config(layers=layers))(video)
    assert out.shape == (2, 1, *logits)
    out.square().sum().backward()
    seen = tuple(side // 2**layers * 2**layers for side in size[1:])
    assert video.grad is not None
    assert (video.grad[..., : seen[0], : seen[1]] != 0).all()


@pytest.mark.parametrize("size", [(7, 16), (16, 7)])
def test_a_clip_smaller_than_a_logit_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ShapeError, match=f"{size[0]}x{size[1]} pixels.*takes 8.*adversarial.layers"):
        PatchDiscriminator(config(layers=3))(torch.zeros(1, 3, 1, *size))


def test_clips_of_a_batch_do_not_see_each_other() -> None:
    discriminator = PatchDiscriminator(config())
    video = clips(0)
    torch.testing.assert_close(discriminator(video)[:1], discriminator(video[:1]))


def test_weights_start_as_the_paper_says() -> None:
    torch.manual_seed(0)
    for name, parameter in PatchDiscriminator(AdversarialConfig()).named_parameters():
        if parameter.ndim > 1:
            assert parameter.std().item() == pytest.approx(0.02, rel=0.1), name
            assert abs(parameter.mean().item()) < 0.003, name
        elif name.endswith("bias"):
            assert not parameter.any(), name


def test_hinge_losses_by_hand() -> None:
    real, drawn = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-3.0, 0.0, 1.0])
    assert discriminator_loss(real, drawn).item() == pytest.approx((0 + 0.5 + 2) / 3 + (0 + 1 + 2) / 3)
    assert adversarial.generator_loss(torch.tensor([-3.0, 1.0])).item() == pytest.approx(1.0)


def test_adaptive_weight_is_the_ratio_of_the_gradients() -> None:
    layer = Parameter(torch.tensor([1.0, 2.0]))
    reconstruction = (layer * torch.tensor([3.0, 4.0])).sum()  # gradient (3, 4): norm 5
    generator = layer.square().sum() / 2  # gradient (1, 2): norm sqrt(5)
    for _ in range(2):  # the graphs are still there
        factor = adaptive_weight(reconstruction, generator, layer)
        assert factor.item() == pytest.approx(5**0.5, rel=1e-5)
    assert not factor.requires_grad
    assert layer.grad is None
    (reconstruction + factor * generator).backward()
    assert adaptive_weight(layer.sum(), 0 * layer.sum(), layer).item() == 1e4
    assert adaptive_weight(1e-3 * layer[0], 1e-6 * layer[0], layer).item() == pytest.approx(1e-3 / 2e-6, rel=1e-4)
    assert adaptive_weight(0 * layer.sum(), layer.sum(), layer).item() == 0


def test_the_generators_term_is_what_the_plain_formula_gives() -> None:
    """The slow twin: through the discriminator as often as the formula asks."""
    adversary_, painter, video = adversary(), Painter(), clips(0)
    gradients, values = [], []
    for plain in (True, False):
        drawn = painter(video)
        reconstruction = (drawn - video).square().mean()
        if plain:
            loss = -copy.deepcopy(adversary_.discriminator)(drawn).mean()
            term = 0.5 * adaptive_weight(reconstruction, loss, painter.last.weight) * loss
        else:
            term = adversary_.generator_loss(drawn, reconstruction, painter.last.weight)
        values.append(term.item())
        painter.zero_grad()
        (reconstruction + term).backward()
        gradients.append([p.grad.clone() for p in painter.parameters() if p.grad is not None])
    assert values[0] == pytest.approx(values[1], rel=1e-5)
    for slow, fast in zip(*gradients, strict=True):
        torch.testing.assert_close(slow, fast)
    assert all(parameter.grad is None for parameter in adversary_.discriminator.parameters())


def test_the_generators_term_has_the_weighted_size_at_the_last_layer() -> None:
    adversary_, painter, video = adversary(weight=0.3), Painter(), clips(0)
    drawn = painter(video)
    reconstruction = (drawn - video).abs().mean()
    term = adversary_.generator_loss(drawn, reconstruction, painter.last.weight)
    norms = [
        torch.autograd.grad(loss, painter.last.weight, retain_graph=True)[0].norm() for loss in (term, reconstruction)
    ]
    assert (norms[0] / norms[1]).item() == pytest.approx(0.3, rel=0.02)


def test_the_term_draws_towards_what_is_judged_real() -> None:
    adversary_, painter, video = adversary(), Painter(), clips(0)
    optimizer = torch.optim.SGD(painter.parameters(), lr=0.1)
    judged = []
    for _ in range(10):
        drawn = painter(video)
        judged.append(adversary_.discriminator(drawn).mean().item())
        loss = adversary_.generator_loss(drawn, (drawn - video).square().mean(), painter.last.weight)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert judged[-1] > judged[0]


def test_the_discriminator_learns_to_tell_noise_from_plain_colour() -> None:
    adversary_ = adversary()
    plain = torch.tensor([0.5, -0.2, 0.1]).view(1, 3, 1, 1, 1).expand(4, 3, 5, 16, 16)
    for step in range(30):
        drawn = clips(step, batch=4).requires_grad_()
        values = adversary_.update(plain, drawn)
        if step == 0:
            assert values["d_loss"] == pytest.approx(2, abs=0.2), "it knows nothing yet"
        assert drawn.grad is None
    assert set(values) == {"d_loss", "d_real", "d_drawn"}
    assert values["d_loss"] < 0.5
    assert values["d_real"] > 0.95
    assert values["d_drawn"] > 0.95
    assert (adversary_.discriminator(plain) > 0).all(), "real is above 0"
    assert (adversary_.discriminator(clips(1000)) < 0).all()


def test_shares_are_of_their_own_side() -> None:
    """A discriminator that calls everything real is right on the real clips alone."""
    adversary_ = adversary()
    nn.init.constant_(adversary_.discriminator.out.bias, 5.0)
    values = adversary_.update(clips(0), clips(1))
    assert (values["d_real"], values["d_drawn"]) == (1.0, 0.0)
    assert values["d_loss"] == pytest.approx(6, abs=0.2)


def test_autocast_is_close_to_fp32() -> None:
    torch.manual_seed(0)
    half = Adversary(config(), CPU, torch.bfloat16)
    full, painter, video = adversary(), Painter(), clips(0)
    drawn = painter(video)
    reconstruction = (drawn - video).square().mean()
    terms = [
        one.generator_loss(image, reconstruction, painter.last.weight)
        for one, image in ((full, drawn), (half, drawn), (half, drawn.bfloat16()))
    ]
    assert all(term.dtype == torch.float32 for term in terms)
    assert terms[1].item() != terms[0].item(), "the products are in bfloat16"
    assert [term.item() for term in terms[1:]] == pytest.approx([terms[0].item()] * 2, rel=0.05, abs=1e-4)
    assert half.update(video, drawn.bfloat16())["d_loss"] == pytest.approx(
        full.update(video, drawn)["d_loss"], rel=0.01
    )


def test_a_restored_adversary_goes_on_bit_for_bit() -> None:
    whole = adversary()
    for step in range(2):
        whole.update(clips(step), clips(10 + step))
    torch.manual_seed(1)
    restored = Adversary(config(), CPU)
    assert not same(weights(whole.discriminator), weights(restored.discriminator))
    load_tensors(*parts(restored), copy.deepcopy(tensors_of(*parts(whole))))
    for step in range(2, 5):
        values = [one.update(clips(step), clips(10 + step)) for one in (whole, restored)]
        assert values[0] == values[1]
    assert same(weights(whole.discriminator), weights(restored.discriminator))


def test_an_adversary_can_be_saved_before_its_start() -> None:
    before = adversary()
    torch.manual_seed(1)
    restored = Adversary(config(), CPU)
    load_tensors(*parts(restored), copy.deepcopy(tensors_of(*parts(before))))
    assert before.update(clips(0), clips(1)) == restored.update(clips(0), clips(1))
    assert same(weights(before.discriminator), weights(restored.discriminator))


def test_it_starts_late_and_only_with_a_weight() -> None:
    assert [adversary(start=3).active(step) for step in (0, 2, 3, 4)] == [False, False, True, True]
    assert not adversary(start=0, weight=0).active(5)
    assert AdversarialConfig().weight == 0, "off unless asked for"


def test_several_processes_make_one_step() -> None:
    """Averaged over the halves of a batch, the gradients are those of the whole batch."""
    alone = adversary()
    alone.update(clips(0, batch=4), clips(1, batch=4))
    halves: list[list[Tensor]] = []

    def note(parameters: Iterable[Parameter]) -> None:
        halves.append([p.grad.clone() for p in parameters if p.grad is not None])

    def average(parameters: Iterable[Parameter]) -> None:
        for i, parameter in enumerate(parameters):
            parameter.grad = (halves[0][i] + halves[1][i]) / 2

    for part in (slice(0, 2), slice(2, 4)):
        adversary(note).update(clips(0, batch=4)[part], clips(1, batch=4)[part])
    together = adversary(average)
    together.update(clips(2), clips(3))
    # The gradients, not the weights: Adam's first step keeps of a gradient its sign alone, and some are all but zero.
    for one, other in zip(alone.discriminator.parameters(), together.discriminator.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-6)


def test_the_step_is_made_of_the_reduced_gradients() -> None:
    def zero(parameters: Iterable[Parameter]) -> None:
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)

    still = adversary(zero)
    before = weights(still.discriminator)
    still.update(clips(0), clips(1))
    assert same(before, weights(still.discriminator))


@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "in another process"])
def test_a_gradient_that_is_not_finite_stops_before_the_step(elsewhere: bool) -> None:
    def spoil(parameters: Iterable[Parameter]) -> None:
        for parameter in parameters:
            parameter.grad = torch.full_like(parameter, float("inf"))

    adversary_ = adversary(spoil if elsewhere else None)
    before = weights(adversary_.discriminator)
    drawn = clips(1) if elsewhere else clips(1) * float("nan")
    with pytest.raises(VpoetError, match=r"diverged.*lower adversarial\.lr.*dtype=fp32"):
        adversary_.update(clips(0), drawn)
    assert same(before, weights(adversary_.discriminator))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weight": -0.1}, r"adversarial\.weight = -0.1: must be at least 0"),
        ({"weight": float("nan")}, r"adversarial\.weight"),
        ({"start": -1}, r"adversarial\.start = -1"),
        ({"width": 12}, r"adversarial\.width = 12: must be a multiple of 8"),
        ({"width": 0}, r"adversarial\.width"),
        ({"layers": 0}, r"adversarial\.layers"),
        ({"layers": 5}, r"adversarial\.layers = 5: must be 1 to 4"),
        ({"lr": 0.0}, r"adversarial\.lr = 0.0"),
    ],
)
def test_senseless_settings_are_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(**changes)
