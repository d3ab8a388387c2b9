"""What is said of clips in plain words, as the tensors that a GPT takes; its text encoder is loaded when needed."""

import warnings
from collections.abc import Iterable, Iterator, Sequence

from torch import Tensor

from tokenreel.transformer import ClipConditions, ConditionConfig, Conditions
from tokenreel.transformer.conditions import Action
from tokenreel.transformer.text_encoder import TextEncoder


class ConditionReader:
    """For one GPT.

    Args:
        config: What it can be told.
        text_encoder: Folder or hub id of its text encoder, where it is not to be found under the name that training
            knew.

    Raises:
        ValueError: If a text encoder is given and the GPT has none.
    """

    def __init__(self, config: ConditionConfig, text_encoder: str | None = None) -> None:
        if text_encoder and not config.text_encoder:
            raise ValueError(f"text encoder {text_encoder}: this model was trained without one; leave it out")
        self.config = config
        self._text_encoder: TextEncoder | None = None
        self._encoder_name = text_encoder or config.text_encoder

    def tensors(self, clips: Sequence[ClipConditions], t_lat: int) -> Conditions:
        """What is said of clips of so many latent frames.

        Raises:
            ValueError: If the model does not know of such things, or its text encoder is not there.
        """
        config, vectors = self.config, None
        if config.text_encoder and any(clip.caption for clip in clips):
            if self._text_encoder is None:
                self._text_encoder = TextEncoder.load(self._encoder_name)
                self._text_encoder.check_same(config.text_encoder, config.text_dim, config.text_probe)
            captions = [clip.caption or "" for clip in clips]
            if self._text_encoder.longest(captions) > config.caption_words:
                warnings.warn(
                    f"captions are cut to the first {config.caption_words} tokens, the most this model takes",
                    stacklevel=3,
                )
            # No caption is not the empty one: its vectors are zero.
            vectors = self._text_encoder.encode(captions, config.caption_words, cut=True)
            vectors[[clip.caption is None for clip in clips]] = 0
        return config.tensors(clips, t_lat, vectors)

    def live(self, actions: Iterable[Sequence[Sequence[Action | None]]], clips: int) -> Iterator[Tensor]:
        """Actions that become known on the way, for one latent frame of all clips after another.

        Args:
            actions: For each latent frame and each clip those that lead to its frames.
            clips: B.

        Returns:
            Iterator over (B, frames per latent frame, ...), as in
            :class:`~tokenreel.transformer.conditions.Conditions`.

        Raises:
            ValueError: If the model knows no actions; on the way if there are more or fewer than frames.
        """
        if "actions" not in self.config.kinds:
            raise ValueError("got actions, but this model was trained without any; leave them out")
        return (self._of_latent_frame(done, clips) for done in actions)

    def _of_latent_frame(self, done: Sequence[Sequence[Action | None]], clips: int) -> Tensor:
        frames = self.config.frames_per_latent
        shape = [len(each) if isinstance(each, list | tuple) else 0 for each in done]
        if shape != [frames] * clips:
            raise ValueError(
                f"got actions {done!r} for a latent frame, expected a list of {frames} for each of {clips} clips"
            )
        told = self.config.tensors([ClipConditions(actions=each) for each in done], 1).actions
        assert told is not None
        return told[:, 0]
