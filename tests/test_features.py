"""Networks that judge clips: the built-in one, TorchScript files, encoders of transformers; and their cache."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tokenreel.evaluation.builtin_features import DIM, BuiltinFeatures
from tokenreel.evaluation.features import content_hash, network_features
from tokenreel.evaluation.pretrained_features import TorchScriptNetwork, TransformersEncoder
from tokenreel.tools.judging_networks import JudgingNetworks


@pytest.fixture
def clips() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 8, 32, 40, 3), dtype=np.uint8)


class Means(nn.Module):
    """Mean colours of what it is given, and its size."""

    def forward(self, video: Tensor) -> Tensor:
        size = torch.tensor([float(video.shape[3]), float(video.shape[4])]).expand(video.shape[0], 2)
        return torch.cat([video.mean(dim=[2, 3, 4]), size], dim=1)


class LikeI3D(nn.Module):
    """Knows the arguments of the file that FVD is computed with."""

    def forward(
        self, video: Tensor, rescale: bool = False, resize: bool = False, return_features: bool = False
    ) -> Tensor:
        assert rescale and resize and return_features
        return video.amax(dim=[2, 3, 4])


def saved(module: nn.Module, path: Path) -> Path:
    torch.jit.save(torch.jit.script(module), str(path))
    return path


def test_builtin_features_are_those_of_always() -> None:
    # A clip that arithmetic gives, so that a change of filters or formulas is seen at once.
    t, y, x = np.meshgrid(np.arange(6), np.arange(32), np.arange(32), indexing="ij")
    clip = np.stack([(y * 7 + x * 3 + t * 11) % 256, (x * 5 + t * 2) % 256, (y * y + t) % 256], axis=-1)
    found = BuiltinFeatures()(clip[None].astype(np.uint8))[0]
    assert found.shape == (DIM,)
    known = KNOWN_FEATURES
    np.testing.assert_allclose(found[list(known)], list(known.values()), atol=1e-3)


KNOWN_FEATURES = {
    0: 0.402,
    6: 0.1667,
    12: 0.2851,
    18: 1.4315,
    24: 0.2935,
    30: 1.5412,
    36: 1.2264,
    42: 1.4944,
    48: 1.4411,
}


def test_builtin_features_take_any_size_and_see_each_clip_alone(clips: np.ndarray) -> None:
    network = BuiltinFeatures()
    together = network(clips)
    assert together.shape == (3, DIM) and together.dtype == np.float64 and np.isfinite(together).all()
    np.testing.assert_allclose(network(clips[1:2]), together[1:2], atol=1e-6)
    for size in ((8, 8), (16, 24), (300, 200)):
        assert np.isfinite(network(np.zeros((1, 3, *size, 3), np.uint8))).all()
    assert network(np.zeros((0, 3, 32, 32, 3), np.uint8)).shape == (0, DIM)
    with pytest.raises(ValueError, match="T at least 2"):
        network(clips[:, :1])


def test_features_are_kept_by_content(clips: np.ndarray, tmp_path: Path) -> None:
    asked = []

    class Counting(BuiltinFeatures):
        def __call__(self, clips: np.ndarray) -> np.ndarray:
            asked.append(len(clips))
            return super().__call__(clips)

    network = Counting()
    first = network_features(network, clips, tmp_path / "features")
    assert np.array_equal(network_features(network, clips.copy(), tmp_path / "features"), first) and asked == [3]
    network_features(network, clips + 1, tmp_path / "features")
    assert asked == [3, 3] and len(list((tmp_path / "features").iterdir())) == 2
    assert content_hash(clips, "a") != content_hash(clips, "b")
    assert content_hash(clips[:, ::2]) == content_hash(clips[:, ::2].copy())


def test_torchscript_files_are_given_what_they_know(clips: np.ndarray, tmp_path: Path) -> None:
    plain = TorchScriptNetwork(saved(Means(), tmp_path / "means.pt"), size=24)
    found = plain(clips)
    assert (found[:, 3:] == 24).all() and np.abs(found[:, :3]).max() < 0.1, "scaled, in [-1, 1]"
    assert plain.identity.startswith("means-") and plain.identity.endswith("-24px")
    i3d = TorchScriptNetwork(saved(LikeI3D(), tmp_path / "i3d.pt"))
    assert i3d(clips).max() == 255, "as it is, 0 to 255"
    (tmp_path / "text.pt").write_text("no network")
    with pytest.raises(ValueError, match="cannot be read as TorchScript"):
        TorchScriptNetwork(tmp_path / "text.pt")
    needs_more = torch.jit.trace(nn.Conv3d(3, 2, (9, 3, 3)), torch.zeros(1, 3, 9, 8, 8))
    torch.jit.save(needs_more, str(tmp_path / "long.pt"))
    with pytest.raises(ValueError, match=r"does not take clips of 8 frames .*; give longer clips"):
        TorchScriptNetwork(tmp_path / "long.pt", size=8)(clips)


def test_a_video_encoder_of_transformers(clips: np.ndarray, tmp_path: Path) -> None:
    # In a process of its own, since half an import would be left behind for other tests.
    probe = [sys.executable, "-c", "from transformers import VideoMAEModel"]
    if subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("transformers is not installed, or cannot import VideoMAE: torchvision does not fit this torch")
    transformers = pytest.importorskip("transformers", reason="the encoders are its")
    config = transformers.VideoMAEConfig(
        image_size=32, num_frames=4, tubelet_size=2, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, decoder_num_hidden_layers=1, decoder_hidden_size=16, decoder_num_attention_heads=2,
    )  # fmt: skip
    model = transformers.VideoMAEModel(config)
    model.save_pretrained(tmp_path / "mae")
    (tmp_path / "mae" / "preprocessor_config.json").write_text('{"image_mean": [0, 0, 0], "image_std": [1, 1, 1]}')
    encoder = TransformersEncoder(str(tmp_path / "mae"))
    found = encoder(clips)
    assert found.shape == (3, 16) and encoder.identity.startswith("mae-") and encoder.identity.endswith("-4x32px")
    square = clips[:, [0, 2, 5, 7], :, 4:36]
    pixels = torch.from_numpy(square).permute(0, 1, 4, 2, 3).float() / 255
    with torch.no_grad():
        states = model.eval()(pixels).last_hidden_state.mean(dim=1)
    np.testing.assert_allclose(encoder(square), states.numpy(), atol=1e-5)
    with pytest.raises(ValueError, match="cannot be loaded as an encoder"):
        TransformersEncoder(str(tmp_path))
    text = transformers.BertModel(
        transformers.BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    )
    text.save_pretrained(tmp_path / "bert")
    with pytest.raises(ValueError, match="BertModel, expected an encoder of video"):
        TransformersEncoder(str(tmp_path / "bert"))


def test_lpips_is_of_named_weights(clips: np.ndarray, tmp_path: Path) -> None:
    from tokenreel.tokenizer.perceptual import STAGES

    widths, state, before = (8, 8, 8, 8, 8), {}, 3
    for width, stage in zip(widths, STAGES, strict=True):
        for layer in stage:
            state[f"features.{layer}.weight"] = torch.randn(width, before, 3, 3) * 0.2
            state[f"features.{layer}.bias"] = torch.zeros(width)
            before = width
    torch.save(state, tmp_path / "vgg.pth")
    assert JudgingNetworks().lpips(torch.device("cpu")) == []
    with pytest.raises(FileNotFoundError, match="check --lpips-weights"):
        JudgingNetworks(lpips_weights=str(tmp_path / "none.pth")).lpips(torch.device("cpu"))
    (measure,) = JudgingNetworks(lpips_weights=str(tmp_path / "vgg.pth")).lpips(torch.device("cpu"))
    found = measure.of_frames(clips, np.roll(clips, 1, axis=0))
    assert found.shape == (3, 8) and (found > 0).all()
    assert np.abs(measure.of_frames(clips, clips)).max() < 1e-6 and measure.better == "lower"
    assert measure.name.startswith("LPIPS, VGG")
