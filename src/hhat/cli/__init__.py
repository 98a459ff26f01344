"""`hhat`, the command line. Nothing heavy is imported before a verb runs, so that --help is instant.

Exit codes: 0 done; 2 the call or the input is wrong (one line on stderr); 3 the numbers failed; 130 interrupted.
"""

import os
import sys
from typing import Annotated

import typer

from hhat import __version__
from hhat.cli import about, bound, calibrate, estimate, files, runs, store, track, train
from hhat.cli.common import FAILED, INTERRUPTED, WRONG

USAGE: type[Exception] = typer.BadParameter.__mro__[2]
"""Base of all usage errors; typer exports it under no name that all its versions share."""

app = typer.Typer(
    name="hhat",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for verb in (
    about.list_names,
    files.simulate,
    files.inspect,
    estimate.estimate,
    track.track,
    calibrate.calibrate,
    bound.bound,
    train.train,
    runs.bench,
    runs.report,
    about.doctor,
):
    app.command(name="list" if verb is about.list_names else None)(verb)
app.add_typer(store.app, name="runs")


def _version(wanted: bool) -> bool:
    if wanted:
        print(__version__)
        raise typer.Exit
    return wanted


@app.callback()
def _hhat(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    """Received pilots in, channel estimates with their variance out."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code; `arguments` default to those of the process."""
    try:
        given = runs.with_ray_address(sys.argv[1:] if arguments is None else arguments)
        code = app(given or ["--help"], prog_name="hhat", standalone_mode=False)
        sys.stdout.flush()
        if code == INTERRUPTED:  # newer typers answer Ctrl-C themselves, older ones raise Abort
            raise KeyboardInterrupt
        return int(code or 0)
    except USAGE as wrong:
        return _refuse(_usage(wrong))
    except ValueError as wrong:
        return _refuse(str(wrong))
    except (KeyboardInterrupt, typer.Abort):
        print("hhat: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # the reader has gone (`hhat list | head -1`): nothing is left to say, at exit neither
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as trouble:
        return _refuse(f"{trouble.filename or 'system'}: {trouble.strerror or trouble}")
    except (MemoryError, RuntimeError) as trouble:
        if isinstance(trouble, RuntimeError) and "memory" not in str(trouble):
            raise
        return _refuse("not enough memory for this call; fewer snapshots or a smaller array would fit")


def _usage(wrong: Exception) -> str:
    context = getattr(wrong, "ctx", None)
    words = wrong.format_message() if hasattr(wrong, "format_message") else str(wrong)  # type: ignore[attr-defined]
    verbs = getattr(getattr(context, "command", None), "commands", None)
    if verbs and "No such command" in words:
        words = f"{words.split('.')[0]}; there are: {' '.join(verbs)}"
    return f"{words.rstrip('.')} (see {context.command_path} --help)" if context else words


def _refuse(words: str) -> int:
    print("hhat: " + " ".join(words.split()), file=sys.stderr)
    return WRONG


__all__ = ["FAILED", "INTERRUPTED", "WRONG", "app", "main"]
