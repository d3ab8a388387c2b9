"""Captions → vectors, by a frozen Hugging Face text encoder.

encoder = TextEncoder.load("models/minilm")  # a folder, or the id of a model on the hub
encoder.encode(["two red balls"], max_tokens=8)  # float16 (1, 8, dim)

Only this file knows ``transformers``, and imports it when an encoder is loaded: ``pip install 'tokenreel[text]'``.
Weights are read from safetensors, never unpickled, and code that comes with a model is not run.
"""

import importlib
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

# Captions in one pass through the encoder; more texts than that are also tokenized in parts.
BATCH = 64
NO_CONVERSION = "DISABLE_SAFETENSORS_CONVERSION"
FLOAT16_LARGEST = float(np.finfo(np.float16).max)
PROBE = "three small dogs run past a red car"
PROBE_NUMBERS = 16
ALIKE = 0.99
"""Cosine of two probes from which on they are of one encoder: rounding on another device leaves more."""


class TextEncoder:
    """The last hidden states of a text encoder, one vector per token; make it with `load`.

    Attributes:
        name: Folder or hub id, as given to `load`.
        dim: Size of a vector.
        probe: What the encoder makes of a fixed sentence, some numbers of it: tells other weights of the same shape.
    """

    def __init__(self, name: str, tokenizer: Any, model: Any) -> None:
        self.name, self._tokenizer, self._model = name, tokenizer, model
        # What the position table holds may be more than what the tokenizer allows for (RoBERTa), or the other way.
        positions = getattr(model.config, "max_position_embeddings", None) or sys.maxsize
        self._most_tokens = min(int(tokenizer.model_max_length), positions)
        one, other = self._tokens(["a", "b"])
        if one == other:  # what transformers makes up where the files of a tokenizer are missing
            raise ValueError(
                f"the tokenizer of {name} knows no words, expected its files (tokenizer.json, or a vocabulary) beside "
                "the weights; download the whole model"
            )
        try:
            states = self._states(self._tokens([PROBE]))[0].float().cpu()
        except Exception as error:  # a model of images or sounds may fail in any way when given text
            raise ValueError(
                f"{name} is no text encoder: {type(model).__name__} makes no states of text ({_first_line(error)}); "
                "choose a model such as BERT, T5 or CLIP"
            ) from None
        self.dim = states.shape[-1]
        self.probe = tuple(states.mean(dim=0)[:PROBE_NUMBERS].tolist())

    @classmethod
    def load(cls, name: str, device: torch.device | str = "cpu") -> Self:
        """Load tokenizer and encoder; of an encoder-decoder model such as T5 the encoder alone.

        Args:
            name: Folder with ``config.json``, tokenizer and ``model.safetensors``, or the id of a model on the
                Hugging Face hub, which is fetched once.
            device: Where to encode.

        Raises:
            FileNotFoundError: If there is no such folder, and no such model on the hub or no network.
            ValueError: If ``transformers`` is not installed, or the model is no text encoder, has no safetensors,
                or needs code of its own.
        """
        with _transformers() as library:
            try:  # first from the disk: without a network the hub is given up only after 20 seconds
                tokenizer, model = _parts(library, name, local_files_only=True)
            except (FileNotFoundError, ValueError):
                if Path(name).exists():
                    raise
                library.utils.logging.enable_progress_bar()  # it may be gigabytes
                tokenizer, model = _parts(library, name, local_files_only=False)
            return cls(name, tokenizer, model.eval().requires_grad_(False).to(device))

    def check_same(self, name: str, dim: int, probe: Sequence[float]) -> None:
        """Whether this is the encoder that training used.

        Args:
            name: What training called it.
            dim: Size of its vectors.
            probe: Its :attr:`probe`.

        Raises:
            ValueError: If it is another one.
        """
        if self.dim != dim:
            raise ValueError(
                f"the text encoder {self.name} makes vectors of {self.dim} numbers, expected {dim} of {name}; give the "
                "one the model was trained with"
            )
        here, there = torch.tensor(self.probe), torch.tensor(list(probe))
        if here.shape != there.shape or torch.cosine_similarity(here, there, dim=0) < ALIKE:
            raise ValueError(
                f"the text encoder {self.name} makes other vectors of one and the same sentence, expected those of "
                f"{name}: its weights are not the same; give the one the model was trained with"
            )

    def longest(self, captions: Sequence[str]) -> int:
        """Tokens of the longest caption, 0 if there is none.

        Raises:
            ValueError: If a caption is not valid text.
        """
        return max((len(tokens) for part in _parted(captions) for tokens in self._tokens(part)), default=0)

    def encode(self, captions: Sequence[str], max_tokens: int, cut: bool = False) -> np.ndarray:
        """The vectors of captions; up to rounding they do not depend on what else is encoded with them.

        Args:
            captions: N texts.
            max_tokens: Rows per caption.
            cut: Whether to leave out the end of a caption that is too long, instead of refusing it.

        Returns:
            float16 (N, max_tokens, dim): one row per token, zeros past the end of a caption.

        Raises:
            ValueError: If a caption is longer than ``max_tokens`` or than the encoder reads, is not valid text, or
                its vectors do not fit into float16.
        """
        vectors = np.zeros((len(captions), max_tokens, self.dim), np.float16)
        most = min(max_tokens, self._most_tokens) if cut else None
        tokens = [found for part in _parted(captions) for found in self._tokens(part, most)]
        # Captions of one length at a time: nothing is padded, so that no padding can be attended to.
        places: dict[int, list[int]] = {}
        for place, (caption, found) in enumerate(zip(captions, tokens, strict=True)):
            self._check_length(caption, len(found), max_tokens)
            places.setdefault(len(found), []).append(place)
        places.pop(0, None)  # without special tokens an empty caption has no vectors
        for length, alike in places.items():
            for part in _parted(alike):
                states = self._states([tokens[place] for place in part]).float().cpu().numpy()
                if not np.abs(states).max() <= FLOAT16_LARGEST:
                    raise ValueError(
                        f"the vectors of {captions[part[0]]!r} or one of the {len(part) - 1} captions beside it by "
                        f"{self.name} reach {np.abs(states).max():g}, expected at most {FLOAT16_LARGEST:g} as float16 "
                        "holds; choose another text encoder"
                    )
                vectors[part, :length] = states
        return vectors

    def _tokens(self, captions: Sequence[str], most: int | None = None) -> list[list[int]]:
        """Token numbers; with ``most`` no more than so many, those that close a text included."""
        for caption in captions:
            try:
                caption.encode()
            except UnicodeEncodeError as error:
                raise ValueError(f"caption {caption!r} is not valid text ({error}); correct or remove it") from None
        # Not verbose: that warns of lengths, which are checked here.
        length = {"truncation": False} if most is None else {"truncation": True, "max_length": most}
        return self._tokenizer(list(captions), padding=False, verbose=False, **length)["input_ids"]

    def _check_length(self, caption: str, length: int, max_tokens: int) -> None:
        most = min(max_tokens, self._most_tokens)
        if length > most:
            start = caption if len(caption) <= 60 else f"{caption[:60]}..."
            raise ValueError(
                f"caption {start!r} has {length} tokens, expected at most {most}"
                f"{f' as {self.name} reads' if most < max_tokens else ''}; shorten it"
            )

    @torch.inference_mode()
    def _states(self, tokens: Sequence[Sequence[int]]) -> Tensor:
        """Token numbers of N captions of one length -> the last hidden states (N, length, dim)."""
        ids = torch.tensor(tokens, device=self._model.device)
        return self._model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state


def _parts(library: Any, name: str, local_files_only: bool) -> tuple[Any, Any]:
    """Tokenizer and encoder; of a model of texts and images such as CLIP that of texts."""
    where: dict[str, Any] = {"local_files_only": local_files_only, "trust_remote_code": False}
    try:
        if Path(name).is_dir() and not Path(name, "config.json").is_file():
            raise OSError("config.json is missing")
        config = library.AutoConfig.from_pretrained(name, **where)
    except OSError as error:
        raise FileNotFoundError(
            f"no text encoder {name}: neither a folder with a config.json nor a model that the Hugging Face hub gives "
            f"({_first_line(error)}); without network download it elsewhere and pass its folder"
        ) from None
    except Exception as error:  # an architecture that the library does not have
        raise ValueError(f"{name} is no text encoder that transformers knows: {_first_line(error)}") from None
    try:
        tokenizer = library.AutoTokenizer.from_pretrained(name, **where)
    except Exception as error:
        raise ValueError(
            f"the tokenizer of {name} cannot be loaded ({_first_line(error)}), expected a text encoder with its "
            "tokenizer.json; choose another model or download the whole of it"
        ) from None
    text = config if config.is_encoder_decoder else config.get_text_config()
    encoders = library.MODEL_FOR_TEXT_ENCODING_MAPPING  # the classes that hold an encoder alone
    kind = library.AutoModelForTextEncoding if type(text) in encoders else library.AutoModel
    try:
        model, found = kind.from_pretrained(
            name, config=text, dtype=torch.float32, use_safetensors=True, output_loading_info=True, **where
        )
    except Exception as error:  # missing, pickled, cut off, of other shapes
        raise ValueError(
            f"{name} has no model.safetensors that can be read ({_first_line(error)}), and pickled weights are not "
            "loaded; choose a model with safetensors, or store it again with transformers' save_pretrained"
        ) from None
    # A pooler makes one vector of a text, which is not used here, and many models come without.
    if missing := sorted(key for key in found["missing_keys"] if "pooler" not in key):
        raise ValueError(f"{name} has no weights {missing[0]} ({len(missing)} missing); download the whole model")
    return tokenizer, model.get_encoder() if model.config.is_encoder_decoder and kind is library.AutoModel else model


@contextmanager
def _transformers() -> Iterator[Any]:
    """The library, while it loads: quiet, without a torchvision that does not load, and without outside services."""
    with _no_broken_torchvision():
        try:
            library = importlib.import_module("transformers")
        except ImportError as error:
            raise ValueError(
                f"a text encoder needs the package transformers ({_first_line(error)}); "
                "pip install 'tokenreel[text]', or leave out the text encoder"
            ) from None
        logging = library.utils.logging
        verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        # Else a bot would be asked, in public, to convert pickled weights of the hub.
        conversion = os.environ.get(NO_CONVERSION)
        os.environ[NO_CONVERSION] = "1"
        try:
            yield library
        finally:
            logging.set_verbosity(verbosity)
            (logging.enable_progress_bar if bars else logging.disable_progress_bar)()
            del os.environ[NO_CONVERSION]
            if conversion is not None:
                os.environ[NO_CONVERSION] = conversion


@contextmanager
def _no_broken_torchvision() -> Iterator[None]:
    """Let a torchvision that does not fit torch look as if not installed: transformers imports whatever is there."""
    try:
        importlib.import_module("torchvision")
    except (ImportError, RuntimeError, OSError):
        sys.modules["torchvision"] = None  # type: ignore[assignment]  # this is how Python marks "not to be found"
        try:
            yield
        finally:
            del sys.modules["torchvision"]
    else:
        yield


def _parted(things: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (things[begin : begin + BATCH] for begin in range(0, len(things), BATCH))


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
