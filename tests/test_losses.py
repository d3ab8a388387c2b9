"""The terms a tokenizer trains on: their values, their weights, and the perceptual distance."""

import builtins
import math
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokenreel.evaluation.fidelity import psnr
from tokenreel.tokenizer import LossConfig, TokenizerConfig, TokenizerObjective, VideoTokenizer
from tokenreel.tokenizer.frames import to_frames
from tokenreel.tokenizer.losses import clip_errors, log_l2, mean_psnr
from tokenreel.tokenizer.perceptual import STAGES, PerceptualDistance, frames_drawn

VIDEO = (3, 3, 4, 16, 16)
NONE = {"l2": 0.0, "l1": 0.0, "log_l2": 0.0}


def tiny(**values: Any) -> VideoTokenizer:
    config = {"width": 16, "encoder_depth": 1, "decoder_depth": 1, "vq_codebook_size": 12, **values}
    return VideoTokenizer(TokenizerConfig(**config))


def random_video() -> Tensor:
    return torch.rand(VIDEO) * 2 - 1


def narrow_vgg(widths: Sequence[int] = (4, 5, 6, 7, 8)) -> dict[str, Tensor]:
    """Weights named like those of torchvision's vgg16, with few channels, and a classifier that is not read."""
    state, before = {"classifier.0.weight": torch.zeros(2, 2)}, 3
    for stage, width in zip(STAGES, widths, strict=True):
        for layer in stage:
            state[f"features.{layer}.weight"] = torch.randn(width, before, 3, 3) / (3 * before**0.5)
            state[f"features.{layer}.bias"] = torch.randn(width) / 10
            before = width
    return state


# values


def test_terms_have_the_values_of_their_names_and_the_loss_is_their_weighted_sum() -> None:
    tokenizer = tiny(quantizer="vq", commitment_weight=0.3)
    output = TokenizerObjective(tokenizer, LossConfig(l2=2.0, l1=0.7, log_l2=0.1))(random_video())
    assert list(output.terms) == ["l2", "l1", "log_l2", "commitment_loss"]
    expected = 2.0 * output.terms["l2"] + 0.7 * output.terms["l1"] + 0.1 * output.terms["log_l2"]
    torch.testing.assert_close(output.loss, expected + 0.3 * output.terms["commitment_loss"])
    assert output.loss.requires_grad and not any(term.requires_grad for term in output.terms.values())


def test_each_term_is_the_plain_formula() -> None:
    tokenizer, video = tiny(), random_video()
    made = tokenizer(video).reconstruction
    terms = TokenizerObjective(tokenizer, LossConfig(l2=1.0, l1=1.0, log_l2=1.0))(video).terms
    errors = ((made - video) ** 2).flatten(1).mean(1)
    torch.testing.assert_close(terms["l2"], F.mse_loss(made, video))
    torch.testing.assert_close(terms["l1"], F.l1_loss(made, video))
    torch.testing.assert_close(terms["log_l2"], errors.log().mean(), rtol=1e-4, atol=0)


def test_log_l2_values_every_clips_decibels_alike_down_to_rounding() -> None:
    errors = torch.tensor([1e-1, 1e-3])
    gains = [log_l2(errors) - log_l2(errors * torch.tensor(halved)) for halved in ([0.5, 1.0], [1.0, 0.5])]
    assert gains[0].item() == pytest.approx(math.log(2) / 2, rel=1e-2)
    assert gains[1].item() == pytest.approx(math.log(2) / 2, rel=1e-2)
    still = torch.zeros(1, requires_grad=True)
    log_l2(still).backward()
    assert still.grad is not None and still.grad.isfinite().all(), "a clip without error is no division by zero"


def test_psnr_while_training_is_that_of_the_evaluation() -> None:
    video = to_frames(random_video())
    noisy = np.clip(video.astype(int) + np.random.default_rng(0).integers(-9, 10, video.shape), 0, 255).astype(np.uint8)
    one, other = (torch.from_numpy(frames.astype(np.float32) / 127.5 - 1) for frames in (video, noisy))
    measured = mean_psnr(clip_errors(one.permute(0, 4, 1, 2, 3), other.permute(0, 4, 1, 2, 3)))
    assert measured.item() == pytest.approx(psnr(video, noisy).mean(), rel=1e-4)


@pytest.mark.parametrize(("weights", "term"), [({"l2": 1.0}, "l2"), ({"l1": 1.0}, "l1"), ({"log_l2": 1.0}, "log_l2")])
def test_only_what_is_switched_on_is_told(weights: dict[str, float], term: str) -> None:
    objective = TokenizerObjective(tiny(), LossConfig(**{**NONE, **weights}))
    assert list(objective(random_video()).terms) == [term]
    assert objective.perceptual is None and objective.adversary is None
    assert {name.removeprefix("tokenizer.") for name in objective.state_dict()} == set(tiny().state_dict())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"l2": -1.0}, "loss.l2 -1.0: expected a weight of 0"),
        ({"l1": math.nan}, "loss.l1 nan: expected a weight"),
        (NONE, "l2, l1, log_l2 and perceptual are all 0, expected one above; set --loss.l2 1"),
        ({**NONE, "adversarial": 1.0}, "are all 0"),
        ({"adversarial_start": 1.0}, r"loss.adversarial_start 1.0: expected a share of the run in \[0, 1\)"),
        ({"perceptual_frames": 0}, "loss.perceptual_frames 0: expected at least 1"),
        ({"discriminator_width": 0}, "loss.discriminator_width 0"),
    ],
)
def test_losses_that_cannot_be(values: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LossConfig(**values)  # type: ignore[arg-type]


# the perceptual distance


def layers_of(state: dict[str, Tensor]) -> nn.ModuleList:
    """The same network as torchvision builds it: one list of convolutions, ReLUs and poolings."""
    layers = nn.ModuleList()
    for stage in STAGES:
        for layer in stage:
            weight, bias = state[f"features.{layer}.weight"], state[f"features.{layer}.bias"]
            convolution = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1)
            convolution.weight, convolution.bias = nn.Parameter(weight), nn.Parameter(bias)
            assert len(layers) == layer, "the numbers in STAGES are positions in this list"
            layers.extend([convolution, nn.ReLU()])
        layers.append(nn.MaxPool2d(2))
    return layers


def slow_distance(layers: Any, one: Tensor, other: Tensor, heads: Sequence[Tensor] | None) -> Tensor:
    """LPIPS as its paper says it."""
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x, y = (((image + 1) / 2 - mean[:, None, None]) / std[:, None, None] for image in (one, other))
    total = torch.zeros(len(one))
    last = [stage[-1] + 1 for stage in STAGES]
    for position, layer in enumerate(layers[: last[-1] + 1]):
        x, y = layer(x), layer(y)
        if position in last:
            number = last.index(position)
            unit = [f / f.square().sum(1, keepdim=True).sqrt().clamp_min(1e-9) for f in (x, y)]
            squares = (unit[0] - unit[1]) ** 2
            total = total + (squares if heads is None else squares * heads[number]).sum(1).mean((1, 2))
    return total


@pytest.mark.parametrize("with_heads", [False, True])
def test_the_perceptual_distance_is_the_papers(with_heads: bool) -> None:
    state, widths = narrow_vgg(), (4, 5, 6, 7, 8)
    heads = [torch.rand(1, width, 1, 1) for width in widths] if with_heads else None
    named = {f"lin{i}.model.1.weight": head for i, head in enumerate(heads)} if heads else None
    distance = PerceptualDistance(state, named)
    one, other = torch.rand(3, 3, 32, 16) * 2 - 1, torch.rand(3, 3, 32, 16) * 2 - 1
    expected = slow_distance(layers_of(state), one, other, heads)
    torch.testing.assert_close(distance(one, other), expected, rtol=5e-3, atol=0)  # the means are rounded
    assert (distance(one, one) == 0).all() and (expected > 0.01).all()


def test_vgg16_is_read_as_torchvision_names_it() -> None:
    try:
        from torchvision.models import vgg16
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"this torchvision does not fit this torch ({error})")
    model = vgg16(weights=None)
    for stage in STAGES:
        assert all(isinstance(model.features[layer], nn.Conv2d) for layer in stage)
        assert isinstance(model.features[stage[-1] + 2], nn.MaxPool2d)
    one, other = torch.rand(1, 3, 16, 16), torch.rand(1, 3, 16, 16)
    expected = slow_distance(model.features, one, other, None)
    torch.testing.assert_close(PerceptualDistance(model.state_dict())(one, other), expected, rtol=5e-3, atol=0)


def test_the_perceptual_network_neither_trains_nor_is_saved_and_black_frames_have_gradients() -> None:
    distance = PerceptualDistance(narrow_vgg())
    assert not list(distance.parameters()) and not distance.state_dict()
    for image in (torch.full((1, 3, 16, 16), -1.0), torch.rand(1, 3, 16, 16)):
        image.requires_grad_()
        distance(image, torch.rand(1, 3, 16, 16)).sum().backward()
        assert image.grad is not None and image.grad.isfinite().all() and image.grad.abs().max() > 0
    with pytest.raises(ValueError, match="images of 8 x 16 are too small for VGG16, expected at least 16 x 16"):
        distance(torch.zeros(1, 3, 8, 16), torch.zeros(1, 3, 8, 16))


def test_some_frames_are_drawn_the_same_from_both_videos() -> None:
    video = torch.arange(4.0).repeat(5, 3, 2, 2, 1).permute(0, 1, 4, 2, 3)  # every value is its frame's number
    chance = torch.rand(5, 4)
    one, other = frames_drawn(2, chance, video, video * 10)
    assert one.shape == (10, 3, 2, 2) and torch.equal(one * 10, other)
    numbers = one[:, 0, 0, 0].view(5, 2)
    assert (numbers[:, 0] != numbers[:, 1]).all() and len(numbers.unique(dim=0)) > 1
    assert torch.equal(frames_drawn(2, chance[3:], video[3:])[0], one[6:]), "a clip's frames are its own"
    assert len(frames_drawn(9, chance, video)[0]) == 5 * 4
    assert len(frames_drawn(2, None, video)[0]) == 5 * 2


def test_the_perceptual_term_is_weighted_told_and_pulls_the_decoder(tmp_path: Path) -> None:
    path = tmp_path / "vgg.pth"
    torch.save(narrow_vgg(), path)
    config = LossConfig(l2=1.0, log_l2=0.0, perceptual=0.5, perceptual_weights=path, perceptual_frames=2)
    objective = TokenizerObjective(tiny(), config)
    output = objective(random_video())
    assert list(output.terms) == ["l2", "perceptual"]
    torch.testing.assert_close(output.loss, output.terms["l2"] + 0.5 * output.terms["perceptual"])
    (gradient,) = torch.autograd.grad(output.loss - output.terms["l2"], objective.tokenizer.decoder.unembed.weight)
    assert gradient.abs().max() > 0
    assert not any("perceptual" in name for name in objective.state_dict())


def test_perceptual_weights_that_are_none_are_told(tmp_path: Path) -> None:
    vgg, text, listed, other = (tmp_path / name for name in ("vgg.pth", "text.pth", "list.pth", "other.pth"))
    torch.save(narrow_vgg(), vgg)
    text.write_text("no weights")
    torch.save([torch.zeros(1)], listed)
    torch.save({"features.0.weight": torch.zeros(1)}, other)
    load = PerceptualDistance.load
    with pytest.raises(FileNotFoundError, match=r"no file .*nowhere.pth, .* check --loss.perceptual-weights"):
        load(tmp_path / "nowhere.pth", None)
    with pytest.raises(ValueError, match=r"text.pth cannot be read as weights .* check --loss.perceptual-weights"):
        load(text, None)
    with pytest.raises(ValueError, match=r"list.pth holds a list, expected a state dict"):
        load(listed, None)
    with pytest.raises(ValueError, match=r"hold no features.0.bias, expected the state dict of torchvision's vgg16"):
        load(other, None)
    with pytest.raises(ValueError, match=r"hold no lin0.model.1.weight, expected LPIPS's heads"):
        load(vgg, vgg)


def test_without_a_file_the_weights_come_from_torchvision_or_a_line_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def published(found: Any) -> None:
        class Weights:
            url = "https://example.org/vgg16.pth"

            def get_state_dict(self, **options: Any) -> dict[str, Tensor]:
                assert options["weights_only"] and options["check_hash"]
                if isinstance(found, Exception):
                    raise found
                return found

        models = types.SimpleNamespace(VGG16_Weights=types.SimpleNamespace(IMAGENET1K_V1=Weights()))
        monkeypatch.setitem(sys.modules, "torchvision", types.ModuleType("torchvision"))
        monkeypatch.setitem(sys.modules, "torchvision.models", models)  # type: ignore[arg-type]

    published(narrow_vgg())
    assert PerceptualDistance.load(None, None).get_buffer("weight0").shape == (4, 3, 3, 3)
    published(OSError("no route to host"))
    with pytest.raises(
        ValueError, match=r"no route to host.*download https://\S+ elsewhere and put it into \S+ or pass"
    ):
        PerceptualDistance.load(None, None)
    monkeypatch.undo()
    real = builtins.__import__

    def without_torchvision(name: str, *arguments: Any, **options: Any) -> Any:
        if name.startswith("torchvision"):
            raise RuntimeError("operator torchvision::nms does not exist")
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without_torchvision)
    with pytest.raises(ValueError, match=r"nms does not exist\); reinstall both, or pass .*--loss.perceptual-weights"):
        PerceptualDistance.load(None, None)
