"""The command line: python -m study run | plan | status | sync | where | cluster check | models | export."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import click
from rich.console import Console

from study import cli as command_line
from study.errors import UserError

OVERRIDES = click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]…")
CONFIG = click.argument("config", type=click.Path(path_type=Path))
STUDY = {"omegaconf", "psutil", "ray", "torch", "torchvision", "wandb", "yaml"}
"""Modules that only the extra `study` installs: needed to train, not to analyse or export."""

ADDRESS = click.option("--address", metavar="ADDRESS", help="Ray cluster to use: auto, or host:port. Default: none.")
MIX = click.option("--mix-recipes", is_flag=True, help="Let runs of another recipe join the study of this name.")


@click.group(
    context_settings=command_line.SETTINGS,
    epilog=command_line.epilog("python -m study run configs/quick.yaml --report", "python -m study run --help"),
)
@command_line.version()
def cli() -> None:
    """By how much is one model more accurate than another, and how sure are we?"""


@cli.command(
    short_help="Train what is missing of a study.",
    epilog=command_line.epilog(
        "python -m study run configs/quick.yaml --report",
        "python -m study run configs/paper.yaml seeds=40 training.epochs=20 name=longer",
        "python -m study run configs/paper.yaml --address auto storage=/shared/results",
        "python -m study run configs/paper.yaml configs/variance.yaml",
    ),
)
@click.argument("config", type=click.Path(path_type=Path))
@click.argument("more", nargs=-1, metavar="[CONFIG]… [KEY=VALUE]…")
@ADDRESS
@click.option("--pack", metavar="WIDTH", help="As launch.pack=WIDTH: learning_rates, auto, or at most this many runs.")
@click.option("--report", is_flag=True, help="Analyse the study afterwards, in a separate process.")
@click.option("--dry-run", is_flag=True, help="Say what would be trained, and train nothing.")
@click.option("--retry-failed", is_flag=True, help="Train the failed runs again.")
@click.option("--dashboard", is_flag=True, help="Start Ray's dashboard, on this machine's loopback address only.")
@MIX
@click.option("--mix-devices", is_flag=True, help="Let one study train on CPUs and GPUs, or on GPUs of several kinds.")
@click.option(
    "--wait-minutes",
    type=click.FloatRange(0, 1e6),
    metavar="MINUTES",
    help="Give up (exit 5) when packs have waited so long for a node. Default: wait on.",
)
def run(
    config: Path,
    more: tuple[str, ...],
    address: str | None,
    pack: str | None,
    report: bool,
    dry_run: bool,
    retry_failed: bool,
    dashboard: bool,
    mix_recipes: bool,
    mix_devices: bool,
    wait_minutes: float | None,
) -> int:
    """Train what is missing of the study that CONFIG describes.

    KEY=VALUE overrides a key of the config. Several configs share one Ray, and the longest packs of all come first.
    Without --address, packs are trained on this machine.
    """
    from study import config_file
    from study.launch import session

    more = (*more, f"launch.pack={pack}") if pack else more
    paths = [config, *(Path(word) for word in more if "=" not in word)]
    overrides = [word for word in more if "=" in word]
    studies = [config_file.load(path, overrides, tell) for path in paths]
    names = [study.name for study in studies]
    if len(set(names)) < len(names):
        raise UserError(f"found the studies {', '.join(names)}; allowed: each name once")
    flags = {"--report": report, "--retry-failed": retry_failed}
    flags |= {"--dashboard": dashboard, "--mix-recipes": mix_recipes, "--mix-devices": mix_devices}
    again = ["python", "-m", "study", "run", str(config), *more]
    again += ["--address", address] if address else []
    again += ["--wait-minutes", f"{wait_minutes:g}"] if wait_minutes is not None else []
    again += [flag for flag, given in flags.items() if given]
    with config_file.named(", ".join(map(str, paths))):
        if dry_run:
            return max(
                session.show_plan(study, Console(), retry_failed=retry_failed, mix_recipes=mix_recipes)
                for study in studies
            )
        options = session.Options(
            again=shlex.join(again),
            address=address,
            retry_failed=retry_failed,
            dashboard=dashboard,
            mix_recipes=mix_recipes,
            mix_devices=mix_devices,
            wait_minutes=wait_minutes,
        )
        code = session.run(studies, Console(), options)
    if not report or code > 1:
        return code
    # When some runs failed, the others still get a report.
    analysed = max(_analyse(session.place(study)) for study in studies)
    return code or analysed


def _analyse(place: str, *options: str) -> int:
    """Analyse the study at `place` in a separate process, without torch and Ray; returns its exit code."""
    sources = str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join(filter(None, [sources, os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "analysis", place, *options]
    code = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, check=False).returncode
    # As a shell tells of a process that a signal ended.
    return code if code >= 0 else 128 - code


@cli.command(
    short_help="Say what would be trained: runs, packs, estimated time.",
    epilog=command_line.epilog("python -m study plan configs/paper.yaml"),
)
@CONFIG
@OVERRIDES
@MIX
def plan(config: Path, overrides: tuple[str, ...], mix_recipes: bool) -> int:
    """Say what would be trained: counts of runs and packs, estimated time."""
    from study import config_file
    from study.launch import session

    study = config_file.load(config, overrides, tell)
    with config_file.named(config):
        return session.show_plan(study, Console(), mix_recipes=mix_recipes)


@cli.command(
    short_help="Print where a study is kept.",
    epilog=command_line.epilog('python -m analysis "$(python -m study where configs/quick.yaml)"'),
)
@CONFIG
@OVERRIDES
def where(config: Path, overrides: tuple[str, ...]) -> int:
    """Print the folder or URI that holds the study, for `python -m analysis`."""
    from study.launch import status

    click.echo(status.find(str(config), overrides))
    return 0


@cli.command(
    short_help="Count the runs finished, diverged, failed and missing.",
    epilog=command_line.epilog(
        "python -m study status configs/quick.yaml", "python -m study status /shared/results/paper"
    ),
)
@click.argument("config_or_dir", type=str)
@OVERRIDES
def status(config_or_dir: str, overrides: tuple[str, ...]) -> int:
    """Count the runs finished, diverged, failed and missing, per configuration, at any moment."""
    from study.launch import status as status_

    return status_.show(config_or_dir, overrides, Console())


@cli.group(
    context_settings=command_line.SETTINGS,
    short_help="Look after a Ray cluster.",
    epilog=command_line.epilog("python -m study cluster check configs/paper.yaml --address auto"),
)
def cluster() -> None:
    """Look after a Ray cluster."""


@cluster.command(
    short_help="Are all nodes fit for a study?",
    epilog=command_line.epilog(
        "python -m study cluster check --address auto",
        "python -m study cluster check configs/paper.yaml storage=/shared/results --address auto",
    ),
)
@click.argument("config", type=click.Path(path_type=Path), required=False)
@OVERRIDES
@click.option("--address", metavar="ADDRESS", default="auto", help="Ray cluster: auto, or host:port. Default: auto.")
def check(config: Path | None, overrides: tuple[str, ...], address: str) -> int:
    """Are all nodes fit for a study? Versions, package, memory, clocks, CUDA; of CONFIG also its storage and models.

    Exit code 1: a node is not fit. `study run` does not use such a node.
    """
    from study import config_file
    from study.launch import cluster as cluster_

    study = None if config is None else config_file.load(config, overrides)
    return cluster_.check(address, Console(), study)


@cli.command(
    short_help="Publish on W&B what it lacks of a study.",
    epilog=command_line.epilog(
        "python -m study sync configs/quick.yaml", "python -m study sync /shared/results/paper --check"
    ),
)
@click.argument("config_or_dir", type=str)
@OVERRIDES
@click.option("--check", is_flag=True, help="Publish nothing: list what differs; exit with 1 if anything does.")
def sync(config_or_dir: str, overrides: tuple[str, ...], check: bool) -> int:
    """Publish on W&B, from the study's ledger, whatever W&B lacks of it, then the study's own run with the findings.

    It may be interrupted and given again at any time, from any machine that can read the ledger: what is there is not
    published twice.
    """
    from study.launch import status as status_
    from study.launch import sync as sync_

    if check:
        return sync_.check(config_or_dir, overrides, Console())
    code = sync_.sync(config_or_dir, overrides, Console())
    # In a folder of its own: whoever publishes a ledger need not be able to write beside it.
    with tempfile.TemporaryDirectory(prefix="report-") as folder:
        return code or _analyse(str(status_.find(config_or_dir, overrides)), "--wandb", "--out", folder)


@cli.command(
    short_help="Print models layer by layer.",
    epilog=command_line.epilog("python -m study models", "python -m study models lenet5 mynets:Net"),
)
@click.argument("names", nargs=-1, metavar="[MODEL]…")
def models(names: tuple[str, ...]) -> int:
    """Print each model layer by layer: output shape, parameter formula, total, multiply-accumulates per image."""
    from study.training import models as models_

    models_.show(names, Console())
    return 0


@cli.command(
    short_help="Write a study's ledger to one ZIP.",
    epilog=command_line.epilog("python -m study export results/quick quick.zip"),
)
@click.argument("folder", metavar="DIR")
@click.argument("file", metavar="FILE.zip", type=click.Path(path_type=Path))
@click.option("--with-clusters", is_flag=True, help="Which test images belong together, such as by writer, as well.")
def export(folder: str, file: Path, with_clusters: bool) -> int:
    """Write a study's records, predictions and test labels to one ZIP, for analysis elsewhere."""
    from study.ledger import ledger
    from study.ledger.storage import Storage

    storage = Storage(folder)
    count = ledger.export(storage, file, with_clusters=with_clusters)
    if not with_clusters and storage.exists(ledger.CLUSTERS):
        tell(f"{ledger.CLUSTERS} is left out; to analyse {file} by clusters give the analysis their file, --clusters")
    click.echo(f"{file}: {count} files")
    return 0


def tell(line: str) -> None:
    """Print to standard error."""
    click.echo(line, err=True)


def main() -> None:
    """Run the command line; a user's mistake is one line and never a traceback."""
    # A user's own model is found in the working directory, also when not started by `python -m`.
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        command_line.run(cli, "stopped; every ended run is kept; to go on, give the same command again")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in STUDY:
            raise
        click.echo(f"error: {error.name} is not installed; this command needs pip install '.[study]'", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
