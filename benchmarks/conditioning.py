"""Do captions and actions steer? Judged by the known state of the embedded worlds, and on a real game.

    python tools/make_world.py balls --twins --hold-out 0.2 --out data/twins
    python tools/make_world.py paddle
    (train a tokenizer and a GPT on each)
    python benchmarks/conditioning.py --captions-model A --paddle-model B --breakout-model C --out runs/c.json

Captions: clips from nothing, for combinations of colours that training held out and for those it showed; how many
show exactly the balls that the caption names. Labels: how many show as many balls as a label alone names. Actions:
validation clips continued under four orders; where the paddle is, beside where the game itself puts it from the same
state; on recorded Breakout (videos with actions, --size 80 --width 64 --fps 0) beside what really happened. Pictures
lie beside the JSON.

The model of results/conditioning_eight_colors.json (two hours on two cores), judged with --samples 1000 --guidance 2
--temperature 0.7 --top-p 0.9 --sharpen others, and of results/conditioning_sharpen_all.json, with --sharpen all:

    world="python tools/make_world.py balls --twins --colors 8 --hold-out 0.2 --lossless"
    $world --count 600 --val-count 100 --out data/few
    $world --count 20000 --val-count 200 --out data/many
    python tools/train_tokenizer.py --data data/few --clip-frames 8 --steps 700 --run runs/eight/tokenizer
    cut="python tools/tokenize_dataset.py --tokenizer runs/eight/tokenizer --processes 2"
    $cut --data data/many --hop 4 --out runs/eight/tokens
    gpt="tools/train_gpt.py --shards runs/eight/tokens --conditions labels captions --model.dim 192 --model.depth 8"
    gpt="$gpt --steps 7500 --batch-size 32 --warmup 100 --decay-share 0.8 --weight-decay 0.1"
    torchrun --nproc_per_node 2 -- $gpt --device cpu --run runs/eight/gpt
"""

import argparse
from pathlib import Path
from typing import get_args

import torch
from conditioning_breakout import PROMPT_FRAMES as BREAKOUT_PROMPT
from conditioning_breakout import breakout_rows
from conditioning_captions import caption_rows, colors_of, label_rows
from conditioning_paddle import PROMPT_FRAMES, paddle_rows
from PIL import Image
from report import report

from tokenreel.evaluation.film_strip import film_strip
from tokenreel.generation import VideoModel
from tokenreel.training.hardware import DeviceName, keep_freed_memory, pick_device
from tokenreel.transformer import SamplingSettings
from tokenreel.transformer.filters import SHARPEN
from tokenreel.transformer.pretrained import data_of

NOTE = (
    "Alternative: the same model and seeds without the caption or the actions. Limit: true clips through the "
    "tokenizer, judged alike. {samples} samples per case where there are so many; temperature {temperature}, "
    "top-p {top_p}, sharpening {sharpen}, guidance {guidance} for captions and labels, {paddle_guidance} for actions."
)


def main() -> None:
    """Run the command line."""
    plain = SamplingSettings()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captions-model", type=Path, help="GPT of a world of balls with twins and --hold-out")
    parser.add_argument("--paddle-model", type=Path, help="GPT of the world paddle")
    parser.add_argument("--breakout-model", type=Path, help="GPT of Breakout with actions, 80 x 64 pixels")
    parser.add_argument("--samples", type=int, default=200, help="clips per case")
    parser.add_argument("--temperature", type=float, default=plain.temperature)
    parser.add_argument("--top-p", type=float, default=0.9, help="as tools/sample.py")
    parser.add_argument("--sharpen", choices=SHARPEN, default=plain.sharpen, help="as tools/sample.py")
    parser.add_argument("--guidance", type=float, default=plain.guidance, help="for captions and labels")
    parser.add_argument("--paddle-guidance", type=float, default=plain.guidance, help="for actions")
    parser.add_argument("--device", choices=get_args(DeviceName), default="auto")
    parser.add_argument("--cache", type=Path, default=Path("runs/clips"), help="folder of decoded videos")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/conditioning.json"), help="JSON file")
    arguments = parser.parse_args()
    if not (arguments.captions_model or arguments.paddle_model or arguments.breakout_model):
        parser.error("give --captions-model, --paddle-model or --breakout-model")
    torch.set_num_threads(1)
    keep_freed_memory()
    device = pick_device(arguments.device)
    drawn = {name: getattr(arguments, name) for name in ("temperature", "top_p", "sharpen")}
    settings = {
        name: SamplingSettings(**drawn, guidance=guidance)
        for name, guidance in (("captions", arguments.guidance), ("paddle", arguments.paddle_guidance))
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    rows = []
    if arguments.captions_model is not None:
        model = VideoModel.from_pretrained(arguments.captions_model, device)
        world = Path(data_of(arguments.captions_model)["folder"])
        table, clips = caption_rows(model, world, arguments.samples, settings["captions"])
        rows += table
        if model.gpt.config.conditions.labels:
            rows += label_rows(model, colors_of(world), arguments.samples, settings["captions"])
        strip = film_strip(clips[:8], every=4, scale=2)
        Image.fromarray(strip).save(arguments.out.with_name(f"{arguments.out.stem}_captions.png"))
    if arguments.paddle_model is not None:
        model, origin = VideoModel.from_pretrained(arguments.paddle_model, device), data_of(arguments.paddle_model)
        table, clips = paddle_rows(model, origin, arguments.samples, settings["paddle"], arguments.cache)
        rows += table
        strip = film_strip(clips, prompt_frames=PROMPT_FRAMES, every=2, scale=2)
        Image.fromarray(strip).save(arguments.out.with_name(f"{arguments.out.stem}_paddle.png"))
    if arguments.breakout_model is not None:
        model, origin = VideoModel.from_pretrained(arguments.breakout_model, device), data_of(arguments.breakout_model)
        table, clips = breakout_rows(model, origin, arguments.samples, settings["paddle"], arguments.cache)
        rows += table
        strip = film_strip(clips, prompt_frames=BREAKOUT_PROMPT, every=1, scale=1)
        Image.fromarray(strip).save(arguments.out.with_name(f"{arguments.out.stem}_breakout.png"))
    report(rows, arguments.out, NOTE.format(**vars(arguments)))


if __name__ == "__main__":
    main()
