"""The causal autoencoder: who sees whom (by gradient), image = first frame, chunks = whole, every stride.

B clips, T frames, t cells. Blocks start as the identity, so every test first gives all weights random values.
"""

import functools
import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from vpoet.config import load, to_dict
from vpoet.errors import ConfigError
from vpoet.tokenizer.autoencoder import SIZES, Autoencoder, AutoencoderConfig, count_parameters, halvings
from vpoet.tokenizer.layers import CausalConv, Past, fold, unfold
from vpoet.tokenizer.quantiser import QuantiserConfig
from vpoet.tokenizer.video import content_hash
from vpoet.training.codec.recipe import VideoTokenizerRecipe

RECIPES = Path(__file__).parents[2] / "tokenizers/configs"

Shape = tuple[int, int, int] | tuple[int, int, int, str]

STRIDES: list[Shape] = [(1, 4, 4), (2, 4, 4), (4, 8, 4), (8, 4, 4), (4, 16, 4), (1, 16, 2), (8, 8, 8)]
"""time_stride, space_stride, patch"""

PRESETS: list[Shape] = [
    (*stride, size) for size in ("tiny", "small", "base") for stride in [(2, 8, 4), (4, 8, 4), (8, 8, 4), (8, 16, 4)]
]
"""The same and the size: the networks as they are trained; of the largest the levels and blocks, a quarter as wide, as
who sees whom does not depend on the width."""

PLAY: list[Shape] = [(1, 8, 2, "play-1x8x8"), (1, 16, 4, "play-1x16x16")]
"""A grid for each frame: the networks of these recipes."""

TOLERANCE = 2e-5
"""For values of order 1 that are summed in another order."""


@functools.cache
def build(time_stride: int = 4, space_stride: int = 8, patch: int = 4, size: str = "") -> Autoencoder:
    torch.manual_seed(0)
    if size.startswith("play"):
        config = load(RECIPES / f"{size}.yaml", VideoTokenizerRecipe).model
    else:
        config = AutoencoderConfig(
            size=size or "tiny",
            time_stride=time_stride,
            space_stride=space_stride,
            patch=patch,
            quantiser=QuantiserConfig(levels=[8, 5, 5]),
        )
    if size == "base":
        config.widths = [width // 4 for width in config.widths]
    if not size:
        config.widths = [8 + 4 * level for level in range(len(config.widths))]
        config.encoder_blocks = config.decoder_blocks = [1] * len(config.widths)
    model = Autoencoder(config)
    for name, parameter in model.named_parameters():
        if "norm" not in name:
            torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1)
    return model.eval()


def clip(frames: int, size: int = 16) -> torch.Tensor:
    return torch.rand(1, 3, frames, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize("strides", [*STRIDES, *PRESETS, *PLAY])
def test_sizes(strides: Shape) -> None:
    r, s, *_ = strides
    model = build(*strides)
    video = torch.rand(2, 3, 1 + 2 * r, 32, 16) * 2 - 1
    drawn, (codes, *_) = model(video)
    assert codes.shape == (2, 3, 32 // s, 16 // s)
    assert drawn.shape == video.shape
    assert model.decode(codes).shape == video.shape


@pytest.mark.parametrize("strides", [*STRIDES, *PRESETS, *PLAY])
def test_encoder_is_causal_by_gradient(strides: Shape) -> None:
    """Cell j depends on frames 0 to r*j, on frame r*j itself, and on no later one."""
    r = strides[0]
    encoder = build(*strides).encoder
    video = clip(1 + 2 * r).requires_grad_()
    vectors = encoder(video.permute(0, 2, 3, 4, 1))
    for cell in range(3):
        (gradient,) = torch.autograd.grad(vectors[:, cell].square().sum(), video, retain_graph=True)
        reach = gradient.abs().amax((0, 1, 3, 4))
        assert torch.count_nonzero(reach[r * cell + 1 :]) == 0
        newest = range(max(0, r * (cell - 1) + 1), r * cell + 1)
        assert all(reach[frame] > 0 for frame in newest)


@pytest.mark.parametrize("strides", [*STRIDES, *PRESETS, *PLAY])
def test_decoder_is_causal_by_gradient(strides: Shape) -> None:
    """Frame i depends on cells 0 to ceil(i/r), on that cell itself, and on no later one."""
    r = strides[0]
    model = build(*strides)
    points = (2 * torch.rand(1, 3, 2, 2, model.quantiser.width) - 1).requires_grad_()  # beyond the grid is no code
    video = model.draw(points)
    for frame in range(1 + 2 * r):
        (gradient,) = torch.autograd.grad(video[:, :, frame].square().sum(), points, retain_graph=True)
        reach = gradient.abs().amax((0, 2, 3, 4))
        newest = -(-frame // r)
        assert torch.count_nonzero(reach[newest + 1 :]) == 0
        assert reach[newest] > 0


@pytest.mark.parametrize("strides", [*STRIDES, *PRESETS, *PLAY])
def test_an_image_is_the_first_frame_of_a_video(strides: Shape) -> None:
    model = build(*strides)
    video = clip(1 + 2 * strides[0])
    whole = model.encoder(video.permute(0, 2, 3, 4, 1))
    alone = model.encoder(video[:, :, :1].permute(0, 2, 3, 4, 1))
    torch.testing.assert_close(alone, whole[:, :1], rtol=0, atol=TOLERANCE)
    codes = model.encode(video)
    torch.testing.assert_close(model.decode(codes[:, :1]), model.decode(codes)[:, :, :1], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("strides", [*STRIDES, *PRESETS, *PLAY])
@pytest.mark.parametrize("first", [1, 2])
def test_chunks_equal_the_whole_clip(strides: Shape, first: int) -> None:
    """Six cells in chunks of ``first``, 1, 2 and the rest, through encoder and decoder."""
    r = strides[0]
    model = build(*strides)
    video = clip(1 + 5 * r).permute(0, 2, 3, 4, 1)
    ends = [first, first + 1, first + 3, 6]
    past: Past = {}
    chunks = [
        model.encoder(video[:, 0 if start == 0 else 1 + r * (start - 1) : 1 + r * (stop - 1)], past)
        for start, stop in zip([0, *ends], ends, strict=False)
    ]
    whole = model.encoder(video)
    torch.testing.assert_close(torch.cat(chunks, 1), whole, rtol=0, atol=TOLERANCE)

    points = model.quantiser(whole).points
    past = {}
    drawn = [model.draw(points[:, start:stop], past) for start, stop in zip([0, *ends], ends, strict=False)]
    torch.testing.assert_close(torch.cat(drawn, 2), model.draw(points), rtol=0, atol=TOLERANCE)


def test_what_is_remembered_does_not_grow() -> None:
    model = build()
    past: Past = {}
    sizes = []
    model.encode(clip(1), past)
    for frames in (4, 40):
        model.encode(clip(frames), past)
        sizes.append(sum(tensor.untyped_storage().nbytes() for tensor in past.values()))
    assert sizes[0] == sizes[1] > 0


def test_causal_convolution_equals_conv3d() -> None:
    """Against torch's dense convolution with the weights laid out its way, the first frame repeated before the clip."""
    torch.manual_seed(0)
    for stride in (1, 2):
        layer = CausalConv(5, 7, stride)
        x = torch.randn(2, 9, 4, 3, 5)
        weight = layer.linear.weight.view(7, 3, 5).permute(0, 2, 1)[..., None, None]
        padded = torch.cat([x[:, :1], x[:, :1], x], 1).permute(0, 4, 1, 2, 3)
        expected = torch.nn.functional.conv3d(padded, weight, layer.linear.bias, stride=(stride, 1, 1))
        torch.testing.assert_close(layer(x), expected.permute(0, 2, 3, 4, 1), rtol=0, atol=TOLERANCE)


def test_fold_keeps_squares_together_and_unfold_undoes_it() -> None:
    x = torch.arange(2 * 3 * 4 * 6 * 5).view(2, 3, 4, 6, 5)
    folded = fold(x, 2)
    assert folded.shape == (2, 3, 2, 3, 20)
    assert torch.equal(folded[0, 1, 1, 2], x[0, 1, 2:4, 4:6].flatten())
    assert torch.equal(unfold(folded, 2), x)


def test_a_fresh_quantiser_input_spreads_over_the_codebook() -> None:
    torch.manual_seed(0)
    model = Autoencoder(AutoencoderConfig(widths=[16, 32, 48], quantiser=QuantiserConfig(levels=[8, 5, 5, 5])))
    digits = model.quantiser.codes_to_digits(model.encode(torch.rand(4, 3, 17, 64, 64) * 2 - 1))
    assert all(len(digits[..., digit].unique()) >= 3 for digit in range(4))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"time_stride": 3}, "time_stride is 3; choose one of 1, 2, 4, 8"),
        ({"space_stride": 12}, "space_stride is 12"),
        ({"patch": 5}, "patch is 5"),
        ({"patch": 8, "space_stride": 4}, "patch 8 is larger"),
        ({"widths": [8, 8]}, "widths has 2 entries.* need 3"),
        ({"decoder_blocks": [1, 1, -1]}, "0 or more"),
        ({"quantiser": QuantiserConfig(levels=[2, 5])}, "levels"),
        ({"size": "huge"}, "choose one of tiny, small, base"),
    ],
)
def test_impossible_shapes_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Autoencoder(AutoencoderConfig(**change))  # type: ignore[arg-type]


@pytest.mark.parametrize("strides", PLAY)
def test_tokenizers_to_play_with_are_small(strides: Shape) -> None:
    """With a transformer of 3.0M parameters, less than 10 MB in fp16; and few operations a frame, for CPUs."""
    model = build(*strides)
    assert model.config.time_stride == strides[0]
    assert model.config.space_stride == strides[1]
    assert model.config.patch == strides[2]
    assert 1024 <= model.quantiser.size <= 4400
    assert count_parameters(model) < 1.6e6
    with FlopCounterMode(display=False) as counted:
        model.draw(torch.zeros(1, 1, 64 // strides[1], 64 // strides[1], model.quantiser.width))
    assert counted.get_total_flops() < 2e8


@pytest.mark.parametrize("stride", [(2, 8), (4, 8), (8, 8), (8, 16)])
def test_sizes_are_as_large_as_they_are_said_to_be(stride: tuple[int, int]) -> None:
    with torch.device("meta"):
        millions = {
            size: count_parameters(
                Autoencoder(AutoencoderConfig(size=size, time_stride=stride[0], space_stride=stride[1]))
            )
            / 1e6
            for size in SIZES
        }
    assert millions["tiny"] < 1
    assert 1 < millions["small"] < 10
    if stride == (4, 8):
        assert millions == pytest.approx({"tiny": 0.53, "small": 4.5, "base": 89}, rel=0.02)


def test_halvings_of_the_default_and_of_an_image_tokenizer() -> None:
    assert halvings(AutoencoderConfig()) == [(True, True), (True, False)]
    image = AutoencoderConfig(time_stride=1, widths=[8, 8], encoder_blocks=[0, 0], decoder_blocks=[0, 0])
    assert halvings(image) == [(False, True)]


def test_with_a_time_kernel_of_1_a_frame_is_coded_and_drawn_on_its_own() -> None:
    config = AutoencoderConfig(
        time_stride=1, time_kernel=1, widths=[8, 12], encoder_blocks=[1, 1], decoder_blocks=[1, 1],
        quantiser=QuantiserConfig(levels=[8, 5, 5]),
    )  # fmt: skip
    torch.manual_seed(0)
    model = Autoencoder(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    video = torch.rand(2, 3, 4, 16, 16) * 2 - 1
    codes, drawn = model.encode(video), model.decode(model.encode(video))
    for frame in range(4):
        torch.testing.assert_close(model.encode(video[:, :, frame : frame + 1])[:, 0], codes[:, frame])
        torch.testing.assert_close(model.decode(codes[:, frame : frame + 1])[:, :, 0], drawn[:, :, frame])
    with pytest.raises(ConfigError, match="time_kernel is 1; it is 3, or 1 where time_stride is 1"):
        AutoencoderConfig(time_stride=4, time_kernel=1)


def test_vectors_of_codes_are_added_to_what_is_made_of_their_points() -> None:
    shape = {"widths": [8, 12], "encoder_blocks": [1, 1], "decoder_blocks": [1, 1]}
    config = AutoencoderConfig(
        time_stride=1, time_kernel=1, quantiser=QuantiserConfig(levels=[4, 3, 5]), code_vectors=True, **shape
    )
    torch.manual_seed(0)
    model = Autoencoder(config).eval()
    plain = Autoencoder(replace(config, code_vectors=False)).eval()
    plain.load_state_dict({n: w for n, w in model.state_dict().items() if "code_vectors" not in n})
    codes = torch.arange(60).reshape(1, 1, 6, 10)
    assert torch.equal(model.decode(codes), plain.decode(codes)), "they begin at zero"
    vectors = model.decoder.code_vectors
    assert vectors is not None
    torch.nn.init.normal_(vectors.weight)
    stem = plain.decoder.stem
    by_code = torch.stack(
        [stem(plain.quantiser.codes_to_points(torch.tensor(c))) + vectors.weight[c] for c in range(60)]
    )
    plain.decoder.stem = torch.nn.Identity()
    torch.testing.assert_close(model.decode(codes), plain.draw(by_code[codes]))
    with pytest.raises(ConfigError, match="a code of vq is a vector already"):
        AutoencoderConfig(quantiser=QuantiserConfig(kind="vq"), code_vectors=True)


def test_keys_that_came_later_leave_the_hash_of_older_tokenizers() -> None:
    model = build()
    facts = to_dict(model.config)
    assert facts.pop("time_kernel") == 3
    assert facts.pop("code_vectors") is False
    assert facts.pop("upscale") == 1
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {list(tensor.shape)}".encode())
        digest.update(tensor.numpy().astype("<f4").tobytes())
    assert content_hash(model) == digest.hexdigest()[:16]
