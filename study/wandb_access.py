"""Reaching Weights & Biases: which server, with which key, in whose project; and its errors as one line each.

Of the environment's secrets only the key is read, and it goes to the server alone.
"""

from __future__ import annotations

import configparser
import contextlib
import netrc
import os
import re
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from study.errors import PublishError, UserError
from study.redaction import mask

if TYPE_CHECKING:
    import wandb

CLOUD = "https://api.wandb.ai"
PROJECT = "lenet5-vs-mlp"
"""Where runs go unless the config or the environment says otherwise."""

PATIENCE = 30.0
"""Seconds that the server has to answer, unless WANDB_INIT_TIMEOUT says otherwise."""

END_SECONDS = 5.0
"""Seconds that W&B's own process has to end when it is told to."""


def api_key(environ: Mapping[str, str]) -> str | None:
    """The key for the server in use, from the environment or from netrc, where `wandb login` puts it; None without."""
    if given := environ.get("WANDB_API_KEY"):
        return given
    if environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return environ["WANDB_IDENTITY_TOKEN_FILE"]
    server = urlsplit(base_url(environ))
    candidates = [environ["NETRC"]] if environ.get("NETRC") else [Path.home() / ".netrc", Path.home() / "_netrc"]
    for file in candidates:
        with contextlib.suppress(OSError, netrc.NetrcParseError, UnicodeDecodeError):
            hosts = netrc.netrc(str(file)).hosts
            for host in (server.netloc, server.hostname):
                if host in hosts and hosts[host][2]:
                    return hosts[host][2]
    return None


def base_url(environ: Mapping[str, str]) -> str:
    """The W&B server in use: WANDB_BASE_URL, or what `wandb login --host` has noted, or W&B's own."""
    return (environ.get("WANDB_BASE_URL") or in_files("base_url", environ) or CLOUD).rstrip("/")


def timeout(environ: Mapping[str, str]) -> float:
    """Seconds to wait for the server, as WANDB_INIT_TIMEOUT or we say."""
    try:
        return float(environ["WANDB_INIT_TIMEOUT"])
    except (KeyError, ValueError):
        return PATIENCE


def known(name: str, environ: Mapping[str, str]) -> str | None:
    """What W&B's variable of this name says (project, entity, …), or else its settings files."""
    return environ.get(f"WANDB_{name.upper()}") or in_files(name, environ)


def in_files(name: str, environ: Mapping[str, str]) -> str | None:
    """What W&B's settings files say: that of `wandb init` in this folder before that of `wandb login`."""
    home = Path(environ.get("WANDB_CONFIG_DIR") or Path.home() / ".config" / "wandb")
    for folder in (Path(environ.get("WANDB_DIR") or ".") / "wandb", home):
        parser = configparser.ConfigParser(interpolation=None, default_section="")
        with contextlib.suppress(OSError, configparser.Error, UnicodeDecodeError):
            parser.read(folder / "settings")
            if found := parser.get("default", name, fallback=""):
                return found
    return None


def connect(entity: str | None, patience: float) -> tuple[wandb.Api, str, str]:
    """W&B's public API, the entity in use, and the address where people see what the server holds.

    Raises UserError without a key, and as wandb does.
    """
    if not api_key(os.environ):
        host = urlsplit(base_url(os.environ)).netloc
        raise UserError(f"W&B: found no key for {host}; allowed: a key, from `wandb login` or in WANDB_API_KEY")
    os.environ.setdefault("WANDB_SILENT", "true")
    import wandb

    seconds = max(2, round(patience))
    # Otherwise wandb retries a 500 for many minutes and never reports it.
    server = wandb.setup(
        wandb.Settings(
            base_url=base_url(os.environ),
            silent=True,
            x_graphql_retry_max=seconds,
            x_graphql_retry_wait_min_seconds=0.2,
            x_graphql_retry_wait_max_seconds=0.5,
            x_graphql_timeout_seconds=seconds,
        )
    )
    api = wandb.Api(timeout=seconds + 1, overrides={"base_url": base_url(os.environ)})
    owner = entity or api.default_entity
    if not owner:
        raise UserError("wandb.entity: found null, and the key's owner has no default; allowed: a user or a team")
    return api, owner, server.settings.app_url


def end(seconds: float = END_SECONDS) -> None:
    """End W&B's own process, which starts again when it is needed; by force if it takes longer than `seconds`.

    With a request pending to a dead server it may take an hour to exit, and we would wait for it.
    """
    import psutil
    import wandb

    def teardown() -> None:
        # The teardown raises SystemExit; it must not leave this thread.
        with contextlib.suppress(SystemExit):
            wandb.teardown()

    ending = threading.Thread(target=teardown, daemon=True)
    ending.start()
    ending.join(seconds)
    if ending.is_alive():
        for child in psutil.Process().children():
            with contextlib.suppress(psutil.Error):
                if "wandb-core" in child.name():
                    child.kill()
        ending.join(seconds)


@contextlib.contextmanager
def errors(entity: str | None, project: str) -> Iterator[None]:
    """Raise what wandb raises as one line: UserError where key or config are at fault, PublishError elsewhere.

    W&B's own process has ended by then.
    """
    host = urlsplit(base_url(os.environ)).netloc
    try:
        yield
    except Exception as error:
        if not (isinstance(error, TimeoutError | ConnectionError) or type(error).__module__.startswith("wandb")):
            raise
        end()
        text = mask(" ".join(str(error).split()))[:300]
        where = f"wandb.project: found {entity + '/' if entity else ''}{project}"
        if re.search(r"\b401\b|API key|relogin", text):
            raise UserError(f"W&B: {host} does not take the key ({text}); allowed: that of `wandb login`") from None
        if re.search(r"\b40[34]\b|permission|not found|not authorized", text, re.IGNORECASE):
            raise UserError(
                f"{where}: {host} refuses it ({text}); allowed: an entity and a project you can write to"
            ) from None
        # What wandb says when its own patience has ended.
        text = "no answer in time" if "is busy and did not respond" in text else text
        raise PublishError(f"W&B: {host} does not answer ({text})") from None
