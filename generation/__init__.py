"""A trained tokenizer and its GPT as one model: frames in, frames out."""

from tokenreel.generation.video_model import Continuation, VideoModel

__all__ = ["Continuation", "VideoModel"]
