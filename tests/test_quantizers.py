"""The four quantizers: one contract; the VQ codebook in training, accumulation, several processes and resumption."""

import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from vector_quantize_pytorch import VectorQuantize

from tokenreel.tokenizer import nearest_code as lookup
from tokenreel.tokenizer.config import TokenizerConfig
from tokenreel.tokenizer.quantized import Quantizer
from tokenreel.tokenizer.quantizer import build_quantizer
from tokenreel.tokenizer.quantizer_binary import bit_entropy_loss

SMALL: dict[str, dict[str, Any]] = {
    "fsq": {"levels": (5, 4, 3)},
    "vq": {"vq_codebook_size": 24, "vq_codebook_dim": 4, "vq_decay": 0.8},
    "bsq": {"bits": 5},
    "lfq": {"bits": 5},
}
LARGEST: dict[str, dict[str, Any]] = {
    "fsq": {"levels": (8, 8, 8, 8, 8, 8)},
    "vq": {"vq_codebook_size": 2**18},
    "bsq": {"bits": 18},
    "lfq": {"bits": 18},
}
every = pytest.mark.parametrize("name", SMALL)
GRID = (4, 2, 3, 5)


def made(name: str, **values: Any) -> Quantizer:
    """A small quantizer in training mode, its codebook begun and moved once."""
    quantizer = build_quantizer(TokenizerConfig(quantizer=name, **(SMALL[name] | values)))  # type: ignore[arg-type]
    for _ in range(2):
        quantizer.train()(features(quantizer))
    return quantizer


def features(quantizer: Quantizer, *grid: int) -> Tensor:
    return torch.randn(*(grid or GRID), quantizer.dim)


def state(quantizer: Quantizer) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in quantizer.state_dict().items()}


def differs(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return any(not torch.equal(tensor, other[name]) for name, tensor in one.items())


class Largest(TorchDispatchMode):
    """Notes the size of the largest tensor made inside the block."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.numbers = max(self.numbers, result.numel())
        return result


# all of them


@every
def test_one_contract(name: str) -> None:
    quantizer = made(name)
    x = features(quantizer).requires_grad_()
    found = quantizer(x)
    assert found.codes.shape == x.shape and found.codes.dtype == torch.float32
    assert found.indices.shape == GRID and found.indices.dtype == torch.int64
    assert found.indices.min() >= 0 and found.indices.max() < quantizer.codebook_size
    assert len(found.indices.unique()) > 10
    assert found.commitment_loss.shape == found.entropy_loss.shape == ()
    assert (found.commitment_loss > 0) == (name in ("vq", "lfq"))
    assert (found.entropy_loss != 0) == (name in ("bsq", "lfq"))
    (found.codes * torch.randn_like(x)).sum().backward()
    assert x.grad is not None and (x.grad.abs().sum(-1) > 0).all()
    quantizer.eval()
    found = quantizer(x)
    torch.testing.assert_close(quantizer.codes(found.indices), found.codes.detach(), rtol=0, atol=1e-6)
    assert torch.equal(quantizer.indices(x), found.indices)
    digits = TokenizerConfig(quantizer=name, **SMALL[name]).digits  # type: ignore[arg-type]
    assert math.prod(digits) == (1 if name == "vq" else quantizer.codebook_size)


@every
def test_indices_alone_are_those_of_the_training_path_and_move_nothing(name: str) -> None:
    quantizer = made(name)
    x, before, chance = features(quantizer), state(quantizer), torch.get_rng_state()
    alone = quantizer.indices(x)
    assert not differs(before, state(quantizer)) and torch.equal(chance, torch.get_rng_state())
    assert torch.equal(quantizer(x).indices, alone)


@every
def test_eval_moves_nothing(name: str) -> None:
    quantizer = made(name).eval()
    before = state(quantizer)
    quantizer(features(quantizer))
    quantizer.indices(features(quantizer))
    assert not differs(before, state(quantizer))


@every
def test_a_position_depends_on_itself_alone(name: str) -> None:
    quantizer = made(name).eval()
    x = features(quantizer)
    whole = quantizer(x)
    other = x.clone()
    other[:, 1:] = features(quantizer)[:, 1:]
    changed = quantizer(other.requires_grad_())
    assert torch.equal(changed.indices[:, :1], whole.indices[:, :1])
    assert torch.equal(changed.codes[:, :1], whole.codes[:, :1])
    assert torch.equal(quantizer.indices(x[1:2, :1, 2:]), whole.indices[1:2, :1, 2:])
    if name != "vq":  # its gradient is that of training alone
        changed.codes[:, :1].square().sum().backward()
        assert other.grad is not None and (other.grad[:, 1:] == 0).all()


@every
def test_float32_whatever_the_autocast(name: str) -> None:
    quantizer = made(name).eval()
    x = features(quantizer, 50, 2, 4, 5)
    expected = quantizer(x)
    with torch.autocast("cpu", torch.bfloat16):
        found = quantizer(x)
        assert found.codes.dtype == torch.float32 and torch.equal(found.codes, expected.codes)
        assert torch.equal(quantizer.indices(x), expected.indices)
        assert quantizer(x.bfloat16()).codes.dtype == torch.float32
        loss = quantizer.train()(x).entropy_loss
    assert torch.equal(loss, quantizer(x).entropy_loss)


@pytest.mark.parametrize("name", ["fsq", "bsq", "lfq"])
def test_an_index_is_made_of_digits_the_first_one_fastest(name: str) -> None:
    quantizer = made(name)
    indices = torch.arange(quantizer.codebook_size)
    codes = quantizer.codes(indices.view(1, 1, 1, -1)).flatten(0, 3)
    place = 1
    for dimension, level in enumerate(TokenizerConfig(quantizer=name, **SMALL[name]).digits):  # type: ignore[arg-type]
        digit = indices // place % level
        values = codes[:, dimension].unique()  # sorted: a larger digit is a larger value
        assert len(values) == level and torch.equal(values[digit], codes[:, dimension])
        place *= level


@every
def test_the_largest_codebook_needs_no_matrix_of_tokens_and_codes(name: str) -> None:
    quantizer = build_quantizer(TokenizerConfig(quantizer=name, **LARGEST[name]))  # type: ignore[arg-type]
    assert quantizer.codebook_size == 2**18
    x = features(quantizer, 4, 8, 8, 8).requires_grad_()
    with Largest() as largest:
        found = quantizer(x)
        (found.codes.sum() + found.commitment_loss + found.entropy_loss).backward()
        quantizer.indices(x)
    assert largest.numbers <= 2**22 < 2048 * 2**18  # the codebook of VQ: 16 numbers for each code
    assert found.indices.max() < 2**18 and len(found.indices.unique()) > 100


@every
def test_compiles_without_graph_breaks(name: str) -> None:
    quantizer = made(name)
    x = features(quantizer).requires_grad_()

    def breaks(call: Callable[[Tensor], Any]) -> int:
        torch._dynamo.reset()
        return torch._dynamo.explain(call)(x).graph_break_count

    assert breaks(quantizer) == (1 if name == "vq" else 0)  # the codebook of VQ learns outside the graph
    assert breaks(quantizer.indices) == 0
    assert breaks(quantizer.eval()) == 0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"quantizer": "gumbel"}, "quantizer 'gumbel': expected one of 'fsq', 'vq', 'bsq', 'lfq'"),
        ({"levels": (8, 2)}, r"levels \(8, 2\): expected .* each at least 3, .*; .* use quantizer 'bsq'"),
        ({"levels": (64, 64, 65)}, r"levels \(64, 64, 65\) make 266240 codes, expected at most 262144; lower levels"),
        ({"quantizer": "bsq", "bits": 19}, "bits 19: expected 2 to 18"),
        ({"quantizer": "lfq", "bits": 1}, "bits 1: expected 2 to 18"),
        ({"quantizer": "vq", "vq_codebook_size": 2**18 + 1}, "vq_codebook_size 262145 .* lower vq_codebook_size"),
        ({"quantizer": "vq", "vq_codebook_dim": 1}, "vq_codebook_dim 1: expected both at least 2"),
        ({"vq_decay": 1.0}, "vq_decay 1.0: expected at least 0 and below 1"),
        ({"entropy_weight": -0.1}, "entropy_weight -0.1: expected a finite number of at least 0"),
        ({"commitment_weight": math.nan}, "commitment_weight nan: expected a finite number"),
    ],
)
def test_settings_that_cannot_be(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TokenizerConfig(**values)


# signs


def test_codes_of_signs_are_signs() -> None:
    for name, length in (("bsq", 1.0), ("lfq", math.sqrt(5))):
        quantizer = made(name)
        x = features(quantizer)
        found = quantizer(x)
        assert torch.equal(found.codes > 0, x > 0)
        torch.testing.assert_close(found.codes.norm(dim=-1), torch.full(GRID, length))


def test_the_entropy_loss_is_that_of_the_dense_matrix_of_tokens_and_codes() -> None:
    logits = torch.randn(40, 5, requires_grad=True)
    codes = made("lfq").codes(torch.arange(32).view(1, 1, 1, 32)).view(32, 5)
    dense = (logits @ codes.T / 2).softmax(1)
    of_codebook = -(dense.mean(0) * dense.mean(0).log()).sum()
    expected = (-(dense * dense.log()).sum(1).mean() - of_codebook) / math.log(32)
    found = bit_entropy_loss(logits)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found, logits), torch.autograd.grad(expected, logits))
    every_code = torch.cartesian_prod(*[torch.tensor([-50.0, 50.0])] * 5)
    assert bit_entropy_loss(every_code).item() == pytest.approx(-1)
    assert bit_entropy_loss(every_code[:1]).item() == pytest.approx(0)


@pytest.mark.parametrize("name", ["bsq", "lfq"])
def test_the_entropy_loss_spreads_features_over_the_codes(name: str) -> None:
    quantizer = made(name)
    crowd = nn.Parameter(0.3 + 0.05 * features(quantizer, 1, 4, 4, 8))
    optimizer = torch.optim.Adam([crowd], lr=0.02)
    assert len(quantizer.indices(crowd).unique()) == 1
    for _ in range(100):
        optimizer.zero_grad()
        quantizer(crowd).entropy_loss.backward()
        optimizer.step()
    assert len(quantizer.indices(crowd).unique()) > 24


# the learned codebook


def test_the_nearest_code_is_found_across_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "TILE", (7, 10))
    x, codebook = torch.randn(50, 3), torch.randn(33, 3)
    codebook[20] = codebook[4]  # of equals the first, whatever the tile
    x[0] = codebook[4]
    nearest = lookup.nearest_code(x, codebook)
    assert torch.equal(nearest, torch.cdist(x, codebook).argmin(1)) and nearest[0] == 4


def test_k_means_finds_the_clumps() -> None:
    centres = 10 * torch.eye(6)[:5]
    clumps = (centres.repeat(40, 1) + 0.1 * torch.randn(200, 6))[torch.randperm(200)]
    found = [lookup.k_means(clumps, 5) for _ in range(8)]
    codebook, counts = min(found, key=lambda book: torch.cdist(clumps, book[0]).amin(1).sum().item())
    assert counts.tolist() == [40] * 5
    assert torch.cdist(centres, codebook).amin(1).max() < 0.1
    few, counts = lookup.k_means(clumps[:3], 5)
    assert counts.tolist() == [1, 1, 1, 0, 0] and len(torch.cat([few[:3], clumps[:3]]).unique(dim=0)) == 3


def test_a_codebook_begun_with_few_features_fills_with_the_next_ones() -> None:
    quantizer = build_quantizer(TokenizerConfig(quantizer="vq", **SMALL["vq"]))
    book = quantizer.vq._codebook
    for grid, filled in (((1, 1, 2, 3), 6), ((1, 1, 2, 3), 12), (GRID, 24)):
        quantizer.train()(features(quantizer, *grid))
        assert len(book.embed[0].unique(dim=0)) in (filled, filled + 1)  # and those that are 0 yet


def test_steps_are_those_of_the_library() -> None:  # its averages are smoothed by 1e-5
    ours = made("vq")
    theirs = VectorQuantize(4, 24, decay=0.8, kmeans_init=True, threshold_ema_dead_code=0, sync_codebook=False)
    theirs.load_state_dict(ours.vq.state_dict())
    for _ in range(3):
        x = features(ours).requires_grad_()
        y = x.detach().flatten(1, 3).requires_grad_()
        found, expected = ours(x), theirs(y)
        (found.codes.square().sum() + found.commitment_loss).backward()
        (expected[0].square().sum() + expected[2].sum()).backward()
        assert torch.equal(found.indices.flatten(1), expected[1])
        torch.testing.assert_close(found.codes.flatten(1, 3), expected[0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(found.commitment_loss, expected[2].sum(), rtol=1e-4, atol=1e-4)
        assert x.grad is not None and y.grad is not None
        torch.testing.assert_close(x.grad.flatten(1, 3), y.grad, rtol=1e-4, atol=1e-4)
    for name, tensor in theirs.state_dict().items():
        torch.testing.assert_close(ours.vq.state_dict()[name], tensor, rtol=1e-4, atol=1e-4, msg=name)


@pytest.mark.parametrize(("grid", "patience"), [((4, 16, 8, 8), 50), ((1, 1, 2, 3), 80)])
def test_dead_codes_begin_anew_where_features_are_and_rare_ones_live(grid: tuple[int, ...], patience: int) -> None:
    quantizer = made("vq")
    book = quantizer.vq._codebook
    book.embed[0, :12], book.embed[0, 12] = 1000.0, -1000.0
    book.embed_avg.copy_(book.embed * book.cluster_size[..., None])
    quantizer.idle.zero_()
    steps = 0
    while (book.embed[0, :12] > 100).all() and steps < 100:
        x = features(quantizer, *grid)
        x[0, 0, 0, 0] = -1000.0 if steps % 40 == 30 else x[0, 0, 0, 0]
        quantizer(x)
        steps += 1
    assert steps == patience + 1  # 20 choices of the average code, or 50 steps if these are more
    assert book.embed[0, :6].max() < 10 and (book.embed[0, 12] < -900).all()


def test_an_empty_codebook_is_told_and_never_made_up_from_the_clip() -> None:
    quantizer = build_quantizer(TokenizerConfig(quantizer="vq"))
    x = features(quantizer)
    with pytest.raises(ValueError, match=r"the VQ codebook is empty, expected one from .*; train it first"):
        quantizer.indices(x)
    with pytest.raises(ValueError, match="the VQ codebook is empty"):
        quantizer.eval()(x)
    trained = made("vq")
    empty = build_quantizer(TokenizerConfig(quantizer="vq", **SMALL["vq"]))
    trained.load_state_dict(empty.state_dict())
    with pytest.raises(ValueError, match="the VQ codebook is empty"):
        trained.indices(features(trained))


def test_micro_batches_move_the_codebook_as_one_batch_does() -> None:
    whole, parts = made("vq"), build_quantizer(TokenizerConfig(quantizer="vq", **SMALL["vq"]))
    parts.load_state_dict(whole.state_dict())
    for _ in range(3):
        x, before = features(whole, 12, 2, 3, 4), state(parts)
        whole(x)
        with parts.accumulating():
            for micro_batch in x[:9].split(3):
                parts(micro_batch)
        assert not differs(before, state(parts))
        parts(x[9:])
        assert differs(before, state(parts))
        for name, tensor in whole.state_dict().items():
            torch.testing.assert_close(parts.state_dict()[name], tensor, rtol=1e-6, atol=1e-6, msg=name)


def test_saved_loaded_and_continued_is_the_same_as_never_stopped(tmp_path: Path) -> None:
    config = TokenizerConfig(quantizer="vq", **SMALL["vq"])

    def steps(quantizer: Quantizer, encoder: nn.Linear, numbers: range) -> None:
        for number in numbers:
            video = torch.randn(*GRID, 6, generator=torch.Generator().manual_seed(number))
            found = quantizer.train()(encoder(video))
            encoder.zero_grad()
            (F.mse_loss(found.codes, video[..., :4]) + found.commitment_loss).backward()
            with torch.no_grad():
                for parameter in encoder.parameters():
                    parameter -= 0.1 * parameter.grad  # type: ignore[operator]

    straight, encoder = build_quantizer(config), nn.Linear(6, 4)
    steps(straight, encoder, range(3))
    save_file(straight.state_dict() | {"w": encoder.weight.data, "b": encoder.bias.data}, tmp_path / "state")
    chance = torch.get_rng_state()
    steps(straight, encoder, range(3, 6))

    resumed, saved = build_quantizer(config), load_file(tmp_path / "state")
    again = nn.Linear(6, 4)
    again.load_state_dict({"weight": saved.pop("w"), "bias": saved.pop("b")})
    resumed.load_state_dict(saved)
    torch.set_rng_state(chance)
    steps(resumed, again, range(3, 6))
    assert torch.equal(again.weight, encoder.weight) and not differs(straight.state_dict(), resumed.state_dict())


# several processes

TRAINING = """
import sys
import torch
from safetensors.torch import save_file
from tokenreel.tokenizer import quantizer
from tokenreel.tokenizer.config import TokenizerConfig
from tokenreel.tokenizer.quantizer import build_quantizer

quantizer.PATIENCE_STEPS = quantizer.PATIENCE_CHOICES = 1  # dead codes begin anew at every step
folder, world, rank = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
torch.set_num_threads(1)
torch.manual_seed(rank)
vq = build_quantizer(TokenizerConfig(quantizer="vq", vq_codebook_size=24, vq_codebook_dim=4, vq_decay=0.5)).train()
bsq = build_quantizer(TokenizerConfig(quantizer="bsq", bits=6)).train()
if world > 1:  # as late as can be: what is built does not know of it
    torch.distributed.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=world)
for step in range(6):
    x = torch.randn(5, 2, 2, 3, 6, generator=torch.Generator().manual_seed(step))
    mine = x if world == 1 else (x[:3], x[3:])[rank]  # not equally many
    vq(mine[..., :4] * (1 + step))
x = x[:4].clone().requires_grad_()
loss = bsq(x if world == 1 else x[2 * rank : 2 * rank + 2]).entropy_loss
loss.backward()
save_file(vq.state_dict() | {"loss": loss.detach(), "gradient": x.grad}, f"{folder}/{rank} of {world}")
"""


def test_two_processes_learn_the_codebook_of_one_with_all_their_features(tmp_path: Path) -> None:
    started = [
        subprocess.Popen([sys.executable, "-c", TRAINING, str(tmp_path), *arguments])
        for arguments in (("2", "0"), ("2", "1"), ("1", "0"))
    ]
    assert [process.wait(timeout=300) for process in started] == [0, 0, 0]
    first, second, alone = (load_file(tmp_path / name) for name in ("0 of 2", "1 of 2", "0 of 1"))
    gradient = (first.pop("gradient") + second.pop("gradient")) / 2  # as DDP averages them
    torch.testing.assert_close(gradient, alone.pop("gradient"))
    torch.testing.assert_close((first.pop("loss") + second.pop("loss")) / 2, alone.pop("loss"))
    for name, tensor in alone.items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], tensor, rtol=1e-5, atol=1e-5, msg=name)


@pytest.mark.parametrize("bits", [10, 18])
def test_a_collapsed_lfq_still_has_a_gradient(bits: int) -> None:
    logits = torch.full((64, bits), 12.0, requires_grad=True)  # all positions sure of one code
    bit_entropy_loss(logits).backward()
    assert logits.grad is not None and logits.grad.isfinite().all()
