"""The tokenizer is one graph for torch.compile, from pixels to loss and back, and compiled it computes the same.

The graphs are run by backend "aot_eager": traced forward and backward, but not made into C++, which would take
minutes. What the compiler makes of them, benchmarks/tokenizer_speed.py --compile shows.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tokenreel.tokenizer import TokenizerConfig, VideoTokenizer

CONFIG = TokenizerConfig(
    stride=(4, 4, 4), width=16, encoder_depth=2, decoder_depth=2, levels=(8, 5, 5, 5), vq_codebook_size=16
)
PRECISIONS = pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])


def tokenizer(quantizer: Any = "fsq") -> VideoTokenizer:
    """Small, and with blocks that do something."""
    made = VideoTokenizer(replace(CONFIG, quantizer=quantizer))
    for name, parameter in made.named_parameters():
        if "down" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    return made


def clip() -> Tensor:
    return torch.rand(2, 3, 8, 16, 16) * 2 - 1


def one_graph(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiled; raises where the graph would break."""
    torch._dynamo.reset()
    return torch.compile(function, backend="aot_eager", fullgraph=True, dynamic=False)


def run(function: Callable[..., Any], bf16: bool, *inputs: Tensor) -> Any:
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        return function(*inputs)


@PRECISIONS
def test_training_pass_is_one_graph_with_the_same_gradients(bf16: bool) -> None:
    model, video = tokenizer().train(), clip()
    found = []
    for forward in (model.__call__, one_graph(model)):
        output = run(forward, bf16, video)
        model.zero_grad()
        output.reconstruction.square().mean().backward()
        found.append((output, [p.grad.clone() for p in model.parameters() if p.grad is not None]))
    (eager, eager_gradients), (compiled, gradients) = found
    assert torch.equal(compiled.indices, eager.indices)
    torch.testing.assert_close(compiled.reconstruction, eager.reconstruction)
    assert len(gradients) == len(eager_gradients) == len(list(model.parameters()))
    torch.testing.assert_close(gradients, eager_gradients)


@pytest.mark.parametrize(("quantizer", "bf16"), [("fsq", False), ("fsq", True), ("vq", False), ("bsq", False)])
def test_encoding_and_decoding_are_one_graph_each(quantizer: Any, bf16: bool) -> None:
    model, video = tokenizer(quantizer), clip()
    model(video)  # a learned codebook begins with its first batch
    model.eval()

    def encode(video: Tensor) -> Tensor:  # what encode and decode do after looking at the values
        return model.quantizer.indices(model.encoder(video))

    def decode(indices: Tensor) -> Tensor:
        return model.decoder(model.quantizer.codes(indices)).float().clamp(-1, 1)

    with torch.no_grad():
        indices = run(one_graph(encode), bf16, video)
        assert torch.equal(indices, run(model.encode, bf16, video))
        torch.testing.assert_close(run(one_graph(decode), bf16, indices), run(model.decode, bf16, indices))


def test_compiled_halves_serve_encode_and_decode() -> None:
    plain, video = tokenizer().eval(), clip()
    indices = plain.encode(video)
    shown = plain.decode(indices)
    plain.encoder.compile(backend="aot_eager", fullgraph=True, dynamic=False)
    plain.decoder.compile(backend="aot_eager", fullgraph=True, dynamic=False)
    assert torch.equal(plain.encode(video), indices)
    torch.testing.assert_close(plain.decode(indices), shown)
    with pytest.raises(ValueError, match="expected"):
        plain.encode(video * 200)
