"""Indices as two factors: an exact distribution, drawn from factor by factor, affordable at 2^18 codes."""

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tokenreel.transformer import (
    ConditionConfig,
    Conditions,
    GPTConfig,
    GPTSize,
    SamplingSettings,
    VideoGPT,
    sample_indices,
)
from tokenreel.transformer.factors import factorize
from tokenreel.transformer.filters import keep_top_k, keep_top_p

GRID = (3, 2, 3)
ChiSquare = Callable[[torch.Tensor, torch.Tensor], float]
FRAME, ALL = 6, 18
CASES = {"product": {"codebook_size": 60, "levels": (5, 3, 4)}, "no product": {"codebook_size": 59}}


def random_gpt(std: float = 0.2, **values: Any) -> VideoGPT:
    """A GPT of two factors whose weights are random everywhere: as made, head and branches are zero."""
    config = {
        "grid": GRID,
        "size": GPTSize(dim=64, depth=1),
        "factors": 2,
        "conditions": ConditionConfig(labels=("a",)),
        **values,
    }
    gpt = VideoGPT(GPTConfig(**config))
    for parameter in gpt.parameters():
        nn.init.normal_(parameter, std=std)
    return gpt.eval()


@torch.no_grad()
def log_probs(gpt: VideoGPT, hidden: torch.Tensor) -> torch.Tensor:
    """Of every index, from hidden states (..., D): (..., K)."""
    K = gpt.config.codebook_size
    every = torch.arange(K).expand(*hidden.shape[:-1], K)
    return -gpt.head.losses(hidden[..., None, :].expand(*every.shape, -1), every, gpt.head.read()).cross_entropy


def hidden_states(gpt: VideoGPT, indices: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
    return gpt.hidden_states(indices, Conditions(labels), gpt.tables())


# how an index is split


@pytest.mark.parametrize(
    ("codebook_size", "levels", "sizes"),
    [
        (2**18, (), (512, 512)),
        (2**18, (2,) * 18, (512, 512)),
        (64_000, (8, 8, 8, 5, 5, 5), (512, 125)),
        (60, (5, 3, 4), (5, 12)),  # 15 x 4 is more to score
        (20_000, (20_000,), (142, 141)),  # one digit cannot be cut in two
        (20_011, (), (142, 141)),
        (3, (), (2, 2)),
        (2, (), (2, 1)),
    ],
)
def test_an_index_is_cut_near_the_root_and_between_digits(
    codebook_size: int, levels: tuple[int, ...], sizes: tuple[int, int]
) -> None:
    factors = factorize(codebook_size, levels)
    assert (factors.first_size, factors.second_size) == sizes
    every = torch.arange(codebook_size)
    first, second = factors.split(every)
    assert torch.equal(factors.join(first, second), every)
    assert (int(first.max()) + 1, int(second.max()) + 1) == sizes and min(first.min(), second.min()) == 0
    assert [int(part) for part in factors.split(torch.tensor(codebook_size))] == list(sizes), "K stands for nothing"
    if len(levels) > 1:
        assert (math.prod(factors.first_levels), math.prod(factors.second_levels)) == sizes
        assert factors.first_levels + factors.second_levels == levels


def test_levels_that_do_not_make_the_codebook_are_refused() -> None:
    with pytest.raises(ValueError, match=r"levels \(5, 3\) make 15 indices, expected codebook_size 60"):
        VideoGPT(GPTConfig(60, GRID, levels=(5, 3), factors=2))


@torch.no_grad()
def test_an_indexs_vector_is_the_sum_of_its_factors_rows() -> None:
    gpt = random_gpt(**CASES["product"])
    table, rows = gpt.index_embedding, gpt.tables().current
    assert rows.shape == (5 + 1 + 12 + 1, 64)
    got = table.look_up(torch.tensor([[7, 59, 60]]), rows)[0]
    assert torch.equal(got[0], table.first.rows()[2] + table.second.rows()[1])
    assert torch.equal(got[1], table.first.rows()[4] + table.second.rows()[11])
    assert torch.equal(got[2], table.first.own.weight[5] + table.second.own.weight[12]), "index K is no pair"
    assert len({tuple(row) for row in table.look_up(torch.arange(61), rows).tolist()}) == 61


# the distribution


@pytest.mark.parametrize("case", CASES)
def test_probabilities_of_all_indices_sum_to_one(case: str) -> None:
    gpt = random_gpt(**CASES[case])
    hidden = hidden_states(gpt, torch.randint(59, (2, *GRID)))
    probability = log_probs(gpt, hidden).double().exp()
    assert probability.shape == (2, ALL, gpt.config.codebook_size) and probability.std() > 0.01
    torch.testing.assert_close(probability.sum(-1), torch.ones(2, ALL, dtype=torch.float64), rtol=0, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("case", CASES)
def test_the_loss_is_minus_the_log_probability(case: str) -> None:
    gpt, indices = random_gpt(**CASES[case]), torch.randint(59, (2, *GRID))
    output = gpt(indices)
    picked = log_probs(gpt, hidden_states(gpt, indices)).gather(-1, indices.flatten(1)[..., None])[..., 0]
    torch.testing.assert_close(output.losses, -picked)
    torch.testing.assert_close(output.loss, -picked.mean())


def test_the_second_factor_is_told_the_first_at_every_place() -> None:
    gpt = random_gpt(codebook_size=36)
    joint = log_probs(gpt, hidden_states(gpt, torch.randint(36, (1, *GRID))))[0].view(ALL, 6, 6)  # second, first
    given = joint.log_softmax(dim=1)  # p(second | first, place)
    assert given.std(dim=2).mean() > 0.1, "which first factor it is makes no difference"
    scores = given - given.mean(dim=1, keepdim=True)  # without the normalisation
    alike = scores.mean(dim=0) + scores.mean(dim=2, keepdim=True) - scores.mean(dim=(0, 2))[:, None]
    assert (scores - alike).std() > 0.1, "it makes the same difference everywhere"


def test_the_first_loss_is_that_of_guessing() -> None:
    gpt = VideoGPT(GPTConfig(2**16, GRID, GPTSize(dim=64, depth=1)))
    assert gpt(torch.randint(2**16, (2, *GRID))).loss.item() == pytest.approx(16 * math.log(2), abs=1e-5)


def test_no_prediction_sees_its_own_or_a_later_index() -> None:
    gpt, indices = random_gpt(**CASES["product"]), torch.randint(60, (1, *GRID))
    before = log_probs(gpt, hidden_states(gpt, indices))
    for place in range(ALL):
        changed = indices.flatten().clone()
        changed[place] = (changed[place] + 5) % 60  # the same first factor
        after = log_probs(gpt, hidden_states(gpt, changed.view(1, *GRID)))
        assert torch.equal(after[:, : place + 1], before[:, : place + 1])
        assert (after != before).any(dim=-1)[0, place + 1 :].all(), f"index {place} is not seen by all later ones"


# learning


@pytest.mark.parametrize("case", CASES)
def test_every_weight_learns(case: str) -> None:
    gpt = random_gpt(**CASES[case])
    gpt(torch.arange(5 * ALL).view(5, *GRID) % 59, torch.tensor([0, 1, 0, 1, 0])).loss.backward()
    for name, parameter in gpt.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("case", CASES)
def test_one_batch_is_learnt_by_heart_and_sampled_again(case: str) -> None:
    gpt = VideoGPT(
        GPTConfig(
            grid=GRID,
            size=GPTSize(dim=64, depth=1),
            factors=2,
            conditions=ConditionConfig(labels=("a", "b")),
            **CASES[case],
        )
    )
    clips, labels = torch.randint(59, (3, *GRID)), torch.tensor([0, 1, 2])
    optimizer = torch.optim.Adam(gpt.eval().parameters(), lr=1e-2)  # in eval mode no label is hidden
    for _ in range(80):
        loss = gpt(clips, labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss.item() < 0.05
    made = sample_indices(gpt, clips[:, :1], 2, SamplingSettings(temperature=0), [0, 1, 2], Conditions(labels))
    assert torch.equal(made, clips)


# sampling


@torch.no_grad()
@pytest.mark.parametrize(("codebook_size", "limit"), [(6, 25.7), (7, 27.9)])
def test_draws_follow_the_distribution(codebook_size: int, limit: float, chi_square: ChiSquare) -> None:
    gpt = random_gpt(std=0.1, codebook_size=codebook_size, grid=(1, 1, 2))
    prompt = torch.zeros(4000, 0, 1, 2, dtype=torch.int64)
    drawn = sample_indices(gpt, prompt, 1, SamplingSettings(), range(4000))[:, 0, 0]
    often = int(drawn[:, 0].mode().values)
    first, second = log_probs(gpt, hidden_states(gpt, torch.tensor([[[[often, 0]]]])))[0].exp()
    assert first.std() > 0.02 and second.std() > 0.02
    # K - 1 degrees of freedom: the limit is exceeded once in 10,000 times.
    assert chi_square(drawn[:, 0], first) < limit
    assert chi_square(drawn[drawn[:, 0] == often, 1], second) < limit


@torch.no_grad()
def test_filters_act_on_each_factor_in_turn(chi_square: ChiSquare) -> None:
    gpt = random_gpt(codebook_size=30)  # 6 x 5
    settings = SamplingSettings(temperature=1.5, top_k=3, top_p=0.8)
    hidden = hidden_states(gpt, torch.randint(30, (1, *GRID)))[0, 4]
    joint = log_probs(gpt, hidden).view(5, 6)  # second, first
    p = [joint.logsumexp(0), joint.log_softmax(0).T]  # p(first); p(second | first), a row for each first
    first, second = (keep_top_p(keep_top_k(x / 1.5, 3), 0.8).softmax(-1) for x in p)
    uniform = torch.rand(20_000, 2, dtype=torch.float64)
    drawn = gpt.head.pick(hidden.expand(20_000, -1), gpt.head.read(), settings, uniform)
    assert chi_square(drawn, (first[:, None] * second).T.flatten()) < 29.9  # 3 x 3 - 1 degrees of freedom at most


@torch.no_grad()
@pytest.mark.parametrize("case", CASES)
def test_greedy_takes_the_likeliest_first_then_the_likeliest_second(case: str) -> None:
    gpt = random_gpt(**CASES[case])
    prompt, factors = torch.randint(59, (3, 1, *GRID[1:])), gpt.head.factors
    expected = torch.zeros(3, ALL, dtype=torch.int64)
    expected[:, :FRAME] = prompt.flatten(1)
    for place in range(FRAME, ALL):  # the slow way: the whole forward pass for every index
        scores = log_probs(gpt, hidden_states(gpt, expected.view(-1, *GRID))[:, place])
        joint = torch.full((3, factors.second_size * factors.first_size), -torch.inf)
        joint[:, : gpt.config.codebook_size] = scores
        joint = joint.view(3, factors.second_size, factors.first_size)
        first = joint.logsumexp(1).argmax(-1)
        expected[:, place] = factors.join(first, joint[torch.arange(3), :, first].argmax(-1))
    assert len(expected.unique()) > 10
    for settings in (SamplingSettings(temperature=0), SamplingSettings(top_k=1), SamplingSettings(top_p=1e-9)):
        assert torch.equal(sample_indices(gpt, prompt, 2, settings, [5, 6, 7]), expected.view(3, *GRID))


@torch.no_grad()
def test_only_indices_below_k_are_drawn() -> None:
    gpt = random_gpt(codebook_size=11, grid=(1, 1, 1))  # 4 x 3 less one
    nn.init.constant_(gpt.head.second.own.weight, 0)
    for number in (0.0, 1 - 2.0**-53):
        uniform = torch.full((500, 2), number, dtype=torch.float64)
        drawn = gpt.head.pick(torch.randn(500, 64), gpt.head.read(), SamplingSettings(), uniform)
        assert drawn.min() >= 0 and drawn.max() == (0 if number == 0 else 7), "7 is the last of the last first factor"


def test_a_row_depends_on_its_own_seed_and_prompt_alone_and_not_on_the_length() -> None:
    gpt, prompt = random_gpt(**CASES["no product"]), torch.randint(59, (3, 1, *GRID[1:]))
    settings, labels = SamplingSettings(temperature=0.9, top_k=7, top_p=0.95), torch.tensor([0, 1, 1])
    together = sample_indices(gpt, prompt, 2, settings, [7, 8, 9], Conditions(labels))
    for i in range(3):
        alone = sample_indices(gpt, prompt[[i]], 2, settings, [7 + i], Conditions(labels[[i]]))
        assert torch.equal(alone[0], together[i])
    assert torch.equal(sample_indices(gpt, prompt, 1, settings, [7, 8, 9], Conditions(labels)), together[:, :2])
    other_seeds = sample_indices(gpt, prompt, 2, settings, [17, 18, 19], Conditions(labels))
    assert (other_seeds[:, 1:] != together[:, 1:]).flatten(1).any(dim=1).all()


def test_both_factors_have_a_random_number_of_their_own(chi_square: ChiSquare) -> None:
    gpt = random_gpt(std=0.0, codebook_size=36, grid=(1, 1, 1))  # all indices alike
    drawn = sample_indices(gpt, torch.zeros(3000, 0, 1, 1, dtype=torch.int64), 1, SamplingSettings(), range(3000))
    assert chi_square(drawn.flatten(), torch.full((36,), 1 / 36)) < 77  # 35 degrees of freedom


@torch.no_grad()
@pytest.mark.parametrize("prefill", [0, 1, FRAME + 2, ALL - 1])
def test_cached_decoding_equals_the_full_forward(prefill: int, cached_states: Callable[..., torch.Tensor]) -> None:
    gpt, indices, labels = random_gpt(**CASES["no product"]), torch.randint(59, (2, *GRID)), torch.tensor([0, 1])
    full = log_probs(gpt, hidden_states(gpt, indices, labels))
    cached = log_probs(gpt, cached_states(gpt, indices, Conditions(labels), prefill))
    torch.testing.assert_close(cached, full, rtol=0, atol=1e-3)


def test_top_k_beyond_both_factors_is_refused() -> None:
    gpt, prompt = random_gpt(codebook_size=30), torch.zeros(1, 1, *GRID[1:], dtype=torch.int64)
    sample_indices(gpt, prompt, 1, SamplingSettings(top_k=6), [0])
    with pytest.raises(ValueError, match=r"top_k 7 exceeds both factors of an index \(6 x 5\), on each of which"):
        sample_indices(gpt, prompt, 1, SamplingSettings(top_k=7), [0])


@pytest.mark.parametrize("name", ["first", "told", "second"])
def test_damaged_weights_are_told(name: str) -> None:
    gpt, prompt = random_gpt(codebook_size=30), torch.zeros(1, 1, *GRID[1:], dtype=torch.int64)
    nn.init.constant_(getattr(gpt.head, name).own.weight, math.nan)
    for temperature in (0.0, 1.0):
        with pytest.raises(ValueError, match="logits are not finite"):
            sample_indices(gpt, prompt, 1, SamplingSettings(temperature=temperature), [0])


# configuration, folders, size


def test_factors_are_chosen_by_the_codebooks_size_and_can_be_said() -> None:
    assert [GPTConfig(2**14 + more, GRID).factors for more in (0, 1)] == [1, 2]
    assert [GPTConfig(60, GRID, factors=said).factors for said in (0, 1, 2)] == [1, 1, 2]
    assert GPTConfig(2**15, GRID, factors=1).head_sizes == (2**15,)
    assert GPTConfig(2**18, GRID).head_sizes == (512, 512)
    with pytest.raises(ValueError, match="factors 3: expected 1 or 2, or 0"):
        GPTConfig(60, GRID, factors=3)


def test_up_to_2_to_the_14_codes_weights_have_the_names_they_always_had() -> None:
    with torch.device("meta"):
        shapes = {name: tuple(t.shape) for name, t in VideoGPT(GPTConfig(2**14, GRID)).state_dict().items()}
    tables = {name: shape for name, shape in shapes.items() if name.startswith(("index", "earlier", "head"))}
    assert tables == {
        f"{name}.own.weight": (2**14 + 1, 256) for name in ("index_embedding", "earlier_embedding", "head")
    }


@pytest.mark.parametrize("factors", [1, 2])
def test_a_saved_gpt_is_the_same_when_loaded(factors: int, tmp_path: Path) -> None:
    gpt, indices = random_gpt(codebook_size=60, levels=(5, 3, 4), factors=factors), torch.randint(60, (1, *GRID))
    gpt.save_pretrained(tmp_path / "gpt")
    path = tmp_path / "gpt" / "config.json"
    config = json.loads(path.read_text())
    assert config["factors"] == factors
    loaded = VideoGPT.from_pretrained(tmp_path / "gpt")
    assert loaded.config == gpt.config
    assert torch.equal(loaded(indices).losses, gpt(indices).losses)


LARGE = """
import resource, torch
from tokenreel.transformer import GPTConfig, GPTSize, SamplingSettings, VideoGPT, sample_indices
torch.set_num_threads(1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
gpt = VideoGPT(GPTConfig(2**18, (2, 4, 4), GPTSize(dim=256, depth=1)))
optimizer = torch.optim.Adam(gpt.parameters())
clips = torch.randint(2**18, (16, 2, 4, 4))
gpt(clips).loss.backward()
optimizer.step()
sample_indices(gpt.eval(), clips[:1, :1], 1, SamplingSettings(top_k=100, top_p=0.9), [0])
print(sum(p.numel() for p in gpt.parameters()), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak memory of a process is read as Linux counts it")
def test_a_training_step_at_2_to_the_18_codes_is_small() -> None:
    said = subprocess.run([sys.executable, "-c", LARGE], capture_output=True, text=True, check=True).stdout.split()
    parameters, kilobytes = map(int, said)
    assert parameters < 3e6, "plain tables would hold 200 million"
    assert kilobytes < 0.3e6, "logits of all indices alone would take 0.5 GB"
