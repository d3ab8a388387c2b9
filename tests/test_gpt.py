"""The GPT: it sees no future, uses labels, learns, and its positions are relative in space-time."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tokenreel.tokenizer import TokenizerConfig
from tokenreel.tokenizer.quantizer import build_quantizer
from tokenreel.transformer import (
    PRESETS,
    ConditionConfig,
    Conditions,
    GPTConfig,
    GPTSize,
    SamplingSettings,
    VideoGPT,
    sample_indices,
)
from tokenreel.transformer.backbone import Backbone
from tokenreel.transformer.index_table import IndexTable
from tokenreel.transformer.positions import BANDS, rotary_angles, token_positions

GRID = (3, 2, 3)
K, LEVELS = 60, (5, 3, 4)


def tiny(labels: tuple[str, ...] = ("cat", "dog"), dropout: float = 0.1, **values: Any) -> GPTConfig:
    conditions = ConditionConfig(labels=labels, dropout=dropout)
    return GPTConfig(
        **{"codebook_size": K, "grid": GRID, "size": GPTSize(dim=64, depth=1), "conditions": conditions, **values}
    )


def random_gpt(**values: Any) -> VideoGPT:
    """A GPT whose weights are random everywhere: as made, head and branches are zero."""
    gpt = VideoGPT(tiny(**values))
    for parameter in gpt.parameters():
        nn.init.normal_(parameter, std=0.2)
    return gpt.eval()


@torch.no_grad()
def log_probs(gpt: VideoGPT, indices: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
    """Of every index at every place: (B, N, K)."""
    tables = gpt.tables()
    hidden = gpt.hidden_states(indices, Conditions(labels), tables)[:, :, None].expand(
        -1, -1, gpt.config.codebook_size, -1
    )
    every = torch.arange(gpt.config.codebook_size).expand(hidden.shape[:-1])
    return -gpt.head.losses(hidden, every, tables.head).cross_entropy


# what an output depends on


@pytest.mark.parametrize("levels", [(), LEVELS], ids=["plain", "digits"])
def test_no_prediction_sees_its_own_or_a_later_index(levels: tuple[int, ...]) -> None:
    gpt = random_gpt(size=GPTSize(dim=128, depth=2), levels=levels)
    indices = torch.randint(K, (1, *GRID))
    before = log_probs(gpt, indices)
    for place in range(math.prod(GRID)):
        changed = indices.flatten().clone()
        changed[place] = (changed[place] + 1) % K
        after = log_probs(gpt, changed.view(1, *GRID))
        assert torch.equal(after[:, : place + 1], before[:, : place + 1])
        rows = (after != before).any(dim=-1)[0, place + 1 :]
        assert rows.all(), f"index {place} is not seen by all later ones"


@torch.no_grad()
def test_a_token_tells_its_index_and_the_one_before_the_place_it_predicts() -> None:
    gpt, frame = random_gpt(), 6
    indices, tables = torch.randint(K, (1, math.prod(GRID))), gpt.tables()
    told = gpt.conditions(Conditions(), 1, GRID[0])
    at = torch.arange(math.prod(GRID))
    before = gpt.embed(gpt.sequence(indices), at, gpt.layout().order, tables, told)
    for place in range(math.prod(GRID)):
        changed = indices.clone()
        changed[0, place] = (changed[0, place] + 1) % K
        after = gpt.embed(gpt.sequence(changed), at, gpt.layout().order, tables, told)
        differs = (after != before).any(dim=-1)[0].nonzero().flatten().tolist()
        # BOS is at 0, so the index is at place + 1, and told to the token before the one a latent frame later.
        assert differs == [n for n in (place + 1, place + frame) if n < math.prod(GRID)]


def test_every_weight_learns() -> None:
    gpt = random_gpt(levels=LEVELS)
    clips = torch.arange(5 * math.prod(GRID)).view(5, *GRID) % K
    gpt(clips, torch.tensor([0, 1, 2, 0, 0])).loss.backward()
    for name, parameter in gpt.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name
    for embedding in (gpt.conditions.label, gpt.row_embedding, gpt.column_embedding):
        assert embedding.weight.grad is not None
        assert (embedding.weight.grad.abs().amax(dim=1) > 0).all(), "a place or label is told to no token"


def test_labels_matter_and_none_means_no_label() -> None:
    gpt, indices = random_gpt(), torch.randint(K, (1, *GRID))
    none, cat, dog = (log_probs(gpt, indices, torch.tensor([label])) for label in (0, 1, 2))
    assert torch.equal(log_probs(gpt, indices), none)
    assert (none - cat).abs().max() > 0.01 and (cat - dog).abs().max() > 0.01


def test_labels_are_hidden_in_training_only() -> None:
    indices = torch.randint(K, (1, *GRID))
    cat, none = torch.tensor([1]), torch.tensor([0])
    always, never = random_gpt(dropout=1.0), random_gpt(dropout=0.0)
    assert not torch.equal(log_probs(always, indices, cat), log_probs(always, indices, none))
    assert torch.equal(log_probs(always.train(), indices, cat), log_probs(always, indices, none))
    assert not torch.equal(log_probs(never.train(), indices, cat), log_probs(never, indices, none))
    half = random_gpt(dropout=0.3).train()  # hidden with all or on its own: 1 - 0.7² = 0.51
    many = log_probs(half, indices.expand(200, -1, -1, -1), cat.expand(200))
    hidden = (many - log_probs(half.eval(), indices, none)).abs().amax(dim=(1, 2)) < 1e-5
    assert 70 < hidden.sum() < 130
    assert torch.equal(cat, torch.tensor([1])), "the caller's labels were changed"


def test_shorter_clips_score_as_the_start_of_longer_ones_and_other_grids_are_refused() -> None:
    gpt, indices = random_gpt(), torch.randint(K, (2, *GRID))
    for frames in (1, 2):
        short = log_probs(gpt, indices[:, :frames])
        torch.testing.assert_close(short, log_probs(gpt, indices)[:, : frames * 6], rtol=0, atol=1e-4)
    for shape in ((2, 4, 2, 3), (2, 3, 3, 2), (2, 0, 2, 3), (2, 18)):
        with pytest.raises(ValueError, match=r"expected \(B, T', H', W'\) with T' up to 3 and H', W' = \(2, 3\)"):
            gpt(torch.zeros(shape, dtype=torch.int64))


# learning


def test_the_first_loss_is_that_of_guessing() -> None:
    gpt = VideoGPT(tiny(codebook_size=1000))
    loss = gpt(torch.randint(1000, (2, *GRID))).loss
    assert loss.item() == pytest.approx(math.log(1000), abs=1e-5)


@torch.no_grad()
def test_the_loss_is_the_mean_cross_entropy_of_the_scores() -> None:
    gpt, indices = random_gpt(), torch.randint(K, (2, *GRID))
    output = gpt(indices)
    scores = gpt.hidden_states(indices, Conditions(), gpt.tables()) @ gpt.head.own.weight[:K].T
    right = -scores.log_softmax(-1).gather(-1, indices.flatten(1)[..., None])[..., 0]
    torch.testing.assert_close(output.losses, right)
    torch.testing.assert_close(output.loss, right.mean())


def test_one_batch_is_learnt_by_heart_and_sampled_again() -> None:
    gpt = VideoGPT(tiny(dropout=0.0)).train()
    clips, labels = torch.randint(K, (3, *GRID)), torch.tensor([0, 1, 2])
    optimizer = torch.optim.Adam(gpt.parameters(), lr=1e-2)
    for _ in range(60):
        loss = gpt(clips, labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss.item() < 0.05
    greedy = SamplingSettings(temperature=0)
    for start in (0, 1):  # the label alone tells the clip, so does its first latent frame
        made = sample_indices(gpt.eval(), clips[:, :start], 3 - start, greedy, [0, 1, 2], Conditions(labels))
        assert torch.equal(made, clips)


# indices that have digits


def test_digits_are_those_of_the_tokenizers_codes() -> None:
    codes = build_quantizer(TokenizerConfig(levels=LEVELS)).codes(torch.arange(K).view(1, 1, 1, K)).view(K, 3)
    table = IndexTable(K, 4, LEVELS, std=1.0)
    assert table.digits.shape == (K, 3) and len(table.digits.unique()) == sum(LEVELS)
    for digit, level in enumerate(LEVELS):
        pairs = {(int(d), round(float(c), 4)) for d, c in zip(table.digits[:, digit], codes[:, digit], strict=True)}
        assert len(pairs) == level, "a digit of the index is not a coordinate of the code"


def test_rows_are_shared_between_indices_that_share_a_digit() -> None:
    table = IndexTable(K, 4, LEVELS, std=1.0)
    rows = table.rows()
    assert rows.shape == (K + 1, 4) and table.shared is not None
    assert torch.equal(rows[K], table.own.weight[K]), "no index has no digits"
    expected = table.own.weight[K - 1] + table.shared.weight[[4, 7, 11]].sum(0)  # the last of each digit
    torch.testing.assert_close(rows[K - 1], expected)
    plain = IndexTable(K, 4, (), std=1.0)
    assert plain.rows() is plain.own.weight
    with pytest.raises(ValueError, match=r"levels \(5, 3\) make 15 indices, expected codebook_size 60"):
        IndexTable(K, 4, (5, 3), std=1.0)


# positions


def turned(x: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """Rotate each pair of a head by its angle."""
    pairs = torch.view_as_complex(x.view(*x.shape[:-1], 32, 2).contiguous())
    return torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)).flatten(-2)


def test_attention_scores_depend_on_relative_positions_alone() -> None:
    query, key = torch.randn(64), torch.randn(64)

    def score(at: torch.Tensor, of: torch.Tensor) -> torch.Tensor:
        angles = rotary_angles(torch.stack([at, of]))
        return turned(query, angles[0]) @ turned(key, angles[1])

    at, of = torch.tensor([3, 5, 1]), torch.tensor([1, 0, 7])
    for axis in range(3):
        step = torch.zeros(3, dtype=torch.int64)
        step[axis] = 2
        torch.testing.assert_close(score(at + step, of + step), score(at, of), rtol=0, atol=1e-4)
        assert (score(at + step, of) - score(at, of)).abs() > 0.1


@torch.no_grad()
def test_the_backbone_turns_by_these_angles() -> None:
    backbone = Backbone(GPTSize(dim=128, depth=2)).eval()
    for parameter in backbone.parameters():
        nn.init.normal_(parameter, std=0.2)
    x, positions = torch.randn(1, 8, 128), torch.randint(6, (8, 3))

    def run(of_queries: torch.Tensor, of_keys: torch.Tensor) -> torch.Tensor:
        return backbone(x, rotary_angles(of_queries), rotary_angles(of_keys))

    out = run(positions, positions)
    shifted = run(*(positions + torch.tensor([2, 1, 3]) for _ in range(2)))
    torch.testing.assert_close(shifted, out, rtol=0, atol=1e-3)
    for axis in range(3):
        moved = positions.clone()
        moved[:4, axis] += 3
        for changed in (run(moved, positions), run(positions, moved), run(moved, moved)):
            assert (changed - out).abs().max() > 0.05


def test_positions_are_in_raster_order_after_the_prefix() -> None:
    positions = token_positions((2, 2, 3), prefix=3).tolist()
    assert positions[:3] == [[-3, 0, 0], [-2, 0, 0], [-1, 0, 0]]
    assert positions[3:-1] == [[t, h, w] for t in range(2) for h in range(2) for w in range(3)]
    assert positions[-1] == [2, 0, 0]


def test_a_query_stands_where_the_index_it_predicts_will_stand() -> None:
    gpt, (t_lat, h_lat, w_lat) = VideoGPT(tiny()), tiny().grid
    prefix, frame = gpt.config.prefix, h_lat * w_lat
    one_step_of_time = rotary_angles(torch.tensor([[1, 0, 0]]))
    for predicted in range(frame, t_lat * frame):
        query, earlier = (
            gpt.layout().query_angles[prefix + predicted - 1],
            gpt.layout().key_angles[prefix + predicted - frame],
        )
        torch.testing.assert_close((query - earlier)[None], one_step_of_time, rtol=0, atol=1e-4)


def test_neighbours_are_told_apart_and_no_distance_looks_like_another() -> None:
    near = rotary_angles(torch.zeros(1, 3, dtype=torch.int64))
    for axis in range(3):
        places = torch.zeros(65, 3, dtype=torch.int64)
        places[:, axis] = torch.arange(65)
        alike = (rotary_angles(places) - near).cos().sum(dim=-1) - (32 - BANDS[axis])  # of pairs that turn with it
        assert alike[0] == BANDS[axis] and alike[1] < 0.45 * BANDS[axis] and alike[2:].max() < 0.55 * BANDS[axis]


# configuration and folder


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GPTSize(dim=100), "dim 100: expected a multiple of 64"),
        (lambda: GPTSize(dim=0), "dim 0: expected a multiple of 64"),
        (lambda: GPTSize(depth=0), "depth 0: expected at least 1"),
        (lambda: GPTSize(dropout=1.0), r"dropout 1.0: expected a share in \[0, 1\)"),
        (lambda: tiny(codebook_size=1), "codebook_size 1: expected at least 2"),
        (lambda: tiny(grid=(3, 2)), r"grid \(3, 2\): expected three sizes"),
        (lambda: tiny(grid=(3, 0, 2)), "grid .*: expected three sizes of at least 1"),
        (lambda: tiny(dropout=1.1), r"condition dropout 1.1: expected a share"),
    ],
)
def test_configurations_that_cannot_be(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_label_names() -> None:
    assert tiny().conditions.label_ids([None, "dog", "cat"]) == [0, 2, 1]
    with pytest.raises(ValueError, match="label 'bird' is unknown to this model; it knows: cat, dog"):
        tiny().conditions.label_ids(["bird"])
    with pytest.raises(ValueError, match="it was trained without labels"):
        tiny(labels=()).conditions.label_ids(["cat"])


def test_a_saved_gpt_is_the_same_when_loaded_and_carries_its_tokenizer(tmp_path: Path) -> None:
    tokenizer = tmp_path / "tokenizer"
    tokenizer.mkdir()
    (tokenizer / "config.json").write_text("{}")
    gpt, indices = random_gpt(tokenizer="ab" * 32, fps=12.5), torch.randint(K, (1, *GRID))
    run = tmp_path / "run"
    for step in (1, 2):  # the second one takes the first one's place
        gpt.save_pretrained(run / "model", provenance={"step": step}, tokenizer=tokenizer)
    assert [p.name for p in run.iterdir()] == ["model"]
    assert json.loads((run / "model" / "provenance.json").read_text()) == {"step": 2}
    assert (run / "model" / "tokenizer" / "config.json").read_text() == "{}"
    for folder in (run, run / "model"):
        loaded = VideoGPT.from_pretrained(folder)
        assert loaded.config == gpt.config and not loaded.training
        assert torch.equal(log_probs(loaded, indices), log_probs(gpt, indices))


def test_folders_that_hold_no_gpt(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no GPT folder .*; train one with tools/train_gpt.py"):
        VideoGPT.from_pretrained(tmp_path / "missing")
    with pytest.raises(FileNotFoundError, match="holds no GPT weights"):
        VideoGPT.from_pretrained(tmp_path)
    random_gpt().save_pretrained(tmp_path / "gpt")
    path = tmp_path / "gpt" / "config.json"
    config = json.loads(path.read_text())
    for change, message in (
        ({"kind": "tokenreel video tokenizer"}, "is not a tokenreel video GPT"),
        ({"format_version": 1}, "has format version 1, expected 2; train the GPT again"),
        ({"depht": 2}, r"names \['depht'\], unknown to this version"),
    ):
        path.write_text(json.dumps({**config, **change}))
        with pytest.raises(ValueError, match=message):
            VideoGPT.from_pretrained(tmp_path / "gpt")


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_can_be_built(preset: str) -> None:
    with torch.device("meta"):
        gpt = VideoGPT(tiny(codebook_size=1024, grid=(4, 8, 8), size=PRESETS[preset]))
    assert sum(p.numel() for p in gpt.parameters()) > 3e6
