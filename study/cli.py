"""What all command lines of the project share: help, exit codes, one line for a user's mistake."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Callable
from importlib import metadata
from typing import Any, NoReturn

import click

from study.errors import StudyError

SETTINGS: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

EXIT_CODES = """\
  0  every planned run has an outcome
  1  some runs failed or are missing
  2  a mistake in the command, the config or the data
  3  the storage refused to read or write
  4  another driver holds the study
  5  Ray did not start, its cluster could not be joined, or lacks what a pack needs
  130  interrupted; the same command resumes"""


def epilog(*examples: str, codes: bool = True) -> str:
    """The end of a command's help: examples and exit codes."""
    text = "\b\nExamples:\n" + "\n".join(f"  {example}" for example in examples)
    return f"{text}\n\n\b\nExit codes:\n{EXIT_CODES}" if codes else text


def version() -> Callable[[Any], Any]:
    """The option --version."""
    try:
        number = metadata.version("lenet5-vs-mlp")
    except metadata.PackageNotFoundError:
        number = "not installed, run from its sources"
    return click.version_option(number, message="lenet5-vs-mlp %(version)s")


def terminations() -> tuple[signal.Signals, ...]:
    """The signals that end a command as Ctrl-C does: SIGTERM, and that of a terminal or connection which closes.

    The latter not where the system has none, as Windows, or where it is ignored, as under `nohup`.
    """
    hangup: signal.Signals | None = getattr(signal, "SIGHUP", None)
    ignored = hangup is not None and signal.getsignal(hangup) == signal.SIG_IGN
    return (signal.SIGTERM,) if hangup is None or ignored else (signal.SIGTERM, hangup)


def run(cli: click.Command, interrupted: str = "stopped") -> NoReturn:
    """Run a command and exit with the code it returns, or with that of its error; `interrupted` is said on Ctrl-C.

    SIGTERM and SIGHUP end it like Ctrl-C, so that locks are released.
    """
    for number in terminations():
        signal.signal(number, signal.default_int_handler)
    for output in (sys.stdout, sys.stderr):
        # Where only ASCII can be written, a question mark is better than no output.
        if isinstance(output, io.TextIOWrapper):
            output.reconfigure(errors="replace")
    try:
        code = cli.main(standalone_mode=False) or 0
    except click.exceptions.Exit as exit_:
        code = exit_.exit_code
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo(interrupted, err=True)
        code = 130
    except StudyError as error:
        click.echo(f"error: {error}", err=True)
        code = error.exit_code
    except BrokenPipeError:
        # The reader of our output is gone; flushing the rest at exit must not raise again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)
