"""How every command line of the project ends: an exit code, and of a user's mistake one line, never a traceback."""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

import click

from study.errors import StudyError


def run(cli: click.Command, interrupted: str = "stopped") -> NoReturn:
    """Run a command and exit with the code it returns, or with that of its error; `interrupted` is said on Ctrl-C.

    SIGTERM ends it as Ctrl-C does, so that what it holds is given back.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
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
        # Whoever read our output has gone; what is left of it must not raise again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)
