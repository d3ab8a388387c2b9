"""How every tool reads its command line and ends.

Defaults < ``--preset`` < command line. Unknown names are errors. A user's mistake is one line on stderr and
exit status 2, never a traceback; a fault of tokenreel's own keeps its traceback.
"""

import io
import os
import re
import shlex
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import tyro

from tokenreel.training.hardware import keep_freed_memory
from tokenreel.training.interruption import Stopped
from tokenreel.training.ranks import is_first, leave, lost_rank, rank, world_size

Config = TypeVar("Config")


def parse(
    config_type: type[Config],
    argv: list[str] | None,
    *,
    description: str | None = None,
    presets: Mapping[str, Config] | None = None,
) -> Config:
    """Build a tool's configuration from its command line.

    Args:
        config_type: Frozen dataclass; its field docstrings are the help texts.
        argv: Arguments without the program's name; ``sys.argv[1:]`` if None.
        description: Text shown above the options.
        presets: Named starting points for ``--preset NAME``; the first one is the default.

    Raises:
        ValueError: If the preset or an option is unknown, or a value is not what it must be.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if presets is None:
        return _read(config_type, args=arguments, description=description)
    name, rest = _take_preset(arguments, next(iter(presets)))
    if name not in presets:
        raise ValueError(f"preset {name!r} is unknown; expected one of {', '.join(presets)}")
    text = f"{description or ''}\n\n--preset {{{','.join(presets)}}} sets the defaults below (now: {name})."
    return _read(config_type, args=rest, default=presets[name], description=text.strip())


def run_tool(
    main: Callable[[Config], Any],
    config_type: type[Config],
    argv: list[str] | None,
    *,
    description: str | None = None,
    presets: Mapping[str, Config] | None = None,
) -> None:
    """Parse the command line and run ``main(config)``; turn a user's mistake into one line and exit status 2."""
    keep_freed_memory()
    # Names of files need not be text, and must not end a run when they are printed.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        main(parse(config_type, argv, description=description, presets=presets))
        leave()
    except (ValueError, OSError) as error:
        message = " ".join(str(error).split()) or type(error).__name__
        print(f"{_speaker()}error: {message}", file=sys.stderr)
        if _is_own_fault(error):
            raise
        raise SystemExit(2) from None
    except Stopped as stopped:
        if is_first():
            print(f"{stopped}; go on with: {_again(argv)}", file=sys.stderr)
        leave()
        raise SystemExit(stopped.status) from None
    except RuntimeError as error:
        told = lost_rank(error)
        if told is None:
            raise
        print(f"error: {told}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        if not is_first():
            raise SystemExit(130) from None
        resumes = any(field.name == "resume" for field in fields(config_type))  # type: ignore[arg-type]
        print("interrupted; run the same command again" + (" with --resume" if resumes else ""), file=sys.stderr)
        raise SystemExit(130) from None


def _speaker() -> str:
    """Who of several processes says something."""
    return f"rank {rank()}: " if world_size() > 1 else ""


def command(tool: str) -> str:
    """How the user starts another tool: beside this one as a script, or as an installed command."""
    started = Path(sys.argv[0])
    if started.suffix == ".py":
        return f"python {started.with_name(tool)}.py"
    return f"tokenreel-{tool.replace('_', '-')}"


def quoted(path: Path | str) -> str:
    """A path as it is typed in a command."""
    return shlex.quote(str(path))


def _again(argv: list[str] | None) -> str:
    """The command that goes on with a run that this one began."""
    started = Path(sys.argv[0])
    arguments = list(sys.argv[1:] if argv is None else argv)
    arguments += [] if "--resume" in arguments else ["--resume"]
    if world_size() == 1:
        name = [f"python {started}" if started.suffix == ".py" else started.name]
        return " ".join([*name, shlex.join(arguments)])
    again = shlex.join([*_launcher(_parent_command(), sys.argv[0]), sys.argv[0], *arguments])
    machines = world_size() > int(os.environ.get("LOCAL_WORLD_SIZE", world_size()))
    return again + (" (and so on every machine, as before)" if machines else "")


def _launcher(command: list[str], tool: str) -> list[str]:
    """What stands before a tool in the command that launched its ranks, as a user types it.

    Args:
        command: Of the process that started this one.
        tool: The tool, as it stands there.
    """
    if tool not in command:  # started by something else than accelerate or torchrun
        return ["torchrun", "--nproc_per_node", os.environ.get("LOCAL_WORLD_SIZE", str(world_size())), "--"]
    before = command[: command.index(tool)]
    script = next((part for part in before[1:2] if Path(part).name in ("accelerate", "torchrun")), None)
    return [Path(script).name, *before[2:]] if script else ["python", *before[1:]]


def _parent_command() -> list[str]:
    """The command of the process that started this one; empty where the system does not tell."""
    try:
        return Path(f"/proc/{os.getppid()}/cmdline").read_text(errors="surrogateescape").rstrip("\0").split("\0")
    except OSError:
        return []


def _read(config_type: type[Config], **options: Any) -> Config:
    """What tyro makes of the command line; a mistake in it becomes a ValueError of one line."""
    box = io.StringIO()
    try:
        with redirect_stderr(box):
            return tyro.cli(config_type, **options)
    except SystemExit as end:
        if end.code != 2:  # --help
            raise
        raise ValueError(_one_line(box.getvalue())) from None


def _one_line(box: str) -> str:
    """The sentence in tyro's box of several lines, and the options that it proposes."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", box)
    lines = [line.strip("│╰╯ ") for line in plain.splitlines()[1:]]  # the first is the title
    parts = [part.strip() for part in re.split(r"^[─-]+$", "\n".join(lines), flags=re.MULTILINE)]
    sentence, *others = [part for part in parts if part]
    proposed = re.findall(r"^--\S+", "\n".join(part for part in others if "Perhaps" in part), flags=re.MULTILINE)
    remedy = f"did you mean {' or '.join(proposed)}?" if proposed else "see --help"
    return f"{' '.join(sentence.split()).rstrip('.')}; {remedy}"


def _take_preset(arguments: list[str], default: str) -> tuple[str, list[str]]:
    """Split ``--preset NAME`` or ``--preset=NAME`` off the arguments."""
    for position, argument in enumerate(arguments):
        if argument.startswith("--preset="):
            return argument.removeprefix("--preset="), arguments[:position] + arguments[position + 1 :]
        if argument == "--preset":
            if position + 1 == len(arguments):
                raise ValueError("--preset needs a name after it")
            return arguments[position + 1], arguments[:position] + arguments[position + 2 :]
    return default, arguments


def _is_own_fault(error: BaseException) -> bool:
    """Whether a ValueError came from a library we call, not from a check of ours: then the trace is needed."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    module = trace.tb_frame.f_globals.get("__name__", "") if trace is not None else ""
    return isinstance(error, ValueError) and not module.startswith(("tokenreel.", "__main__"))
