"""The command line: python -m study run | plan | status | models | export."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from rich.console import Console

from study import command, config_file

OVERRIDES = click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]…")
CONFIG = click.argument("config", type=click.Path(path_type=Path))
MIX = click.option("--mix-recipes", is_flag=True, help="Let runs of another recipe join the study of this name.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """By how much is one model more accurate than another, and how sure are we?"""


@cli.command()
@CONFIG
@OVERRIDES
@click.option("--address", metavar="ADDRESS", help="A Ray cluster to use: auto, or host:port. Default: this machine.")
@click.option("--dry-run", is_flag=True, help="Say what would be trained, and train nothing.")
@click.option("--retry-failed", is_flag=True, help="Train again the runs that failed.")
@click.option("--dashboard", is_flag=True, help="Start Ray's dashboard, on this machine's loopback address only.")
@MIX
def run(
    config: Path,
    overrides: tuple[str, ...],
    address: str | None,
    dry_run: bool,
    retry_failed: bool,
    dashboard: bool,
    mix_recipes: bool,
) -> int:
    """Train what is missing of the study that CONFIG describes."""
    from study import session

    study = config_file.load(config, overrides)
    console = Console(stderr=False)
    if dry_run:
        return session.show_plan(study, console, retry_failed=retry_failed, mix_recipes=mix_recipes)
    again = f"python -m study run {config}" + "".join(f" {o}" for o in overrides)
    return session.run(
        study,
        console,
        address=address,
        retry_failed=retry_failed,
        dashboard=dashboard,
        mix_recipes=mix_recipes,
        again=again,
    )


@cli.command()
@CONFIG
@OVERRIDES
@MIX
def plan(config: Path, overrides: tuple[str, ...], mix_recipes: bool) -> int:
    """Say what would run: counts, packs, estimated time."""
    from study import session

    return session.show_plan(config_file.load(config, overrides), Console(), mix_recipes=mix_recipes)


@cli.command()
@click.argument("config_or_dir", type=str)
@OVERRIDES
def status(config_or_dir: str, overrides: tuple[str, ...]) -> int:
    """Count the runs finished, diverged, failed and missing, per configuration, at any moment."""
    from study import status as status_

    return status_.show(config_or_dir, overrides, Console())


@cli.command()
@click.argument("names", nargs=-1)
def models(names: tuple[str, ...]) -> int:
    """Print each model layer by layer: output shape, parameter formula, total, multiply-accumulates per image."""
    from study import models as models_

    models_.show(names, Console())
    return 0


@cli.command()
@click.argument("folder", metavar="DIR")
@click.argument("file", metavar="FILE.zip", type=click.Path(path_type=Path))
def export(folder: str, file: Path) -> int:
    """Write a study's records, predictions and test labels to one ZIP, for analysis elsewhere."""
    from study import ledger
    from study.storage import Storage

    count = ledger.export(Storage(folder), file)
    click.echo(f"{file}: {count} files")
    return 0


def main() -> None:
    """Run the command line; a user's mistake is one line and never a traceback."""
    # A user's own model is found where the command is given, also when it is not started by `python -m`.
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    command.run(cli, "stopped; every ended run is kept; to go on, give the same command again")


if __name__ == "__main__":
    main()
