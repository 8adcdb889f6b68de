"""Reaching W&B: what of it could hold us up."""

import os
import subprocess
import sys

import pytest

from tests import processes, wandb_server

SCRIPT = """
import sys, threading, time
import psutil, wandb
from study import wandb_access

run = wandb.init(project="p", entity="me", dir=sys.argv[1], settings=wandb.Settings(silent=True, console="off"))
print("began", flush=True)
sys.stdin.readline()
threading.Thread(target=lambda: run.log({"x": 1}), daemon=True).start()
time.sleep(1)
services = [child for child in psutil.Process().children() if "wandb-core" in child.name()]
assert len(services) == 1, services
wandb_access.end(2)
print("running" if services[0].is_running() else "ended", flush=True)
"""


@pytest.mark.slow
def test_w_and_b_ends_in_time_though_a_server_never_answers(tmp_path):
    with wandb_server.serve() as server:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
        environ |= {"WANDB_API_KEY": processes.KEY, "WANDB_BASE_URL": server.url}
        command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        with subprocess.Popen(command, env=environ, **pipes) as process:
            try:
                assert process.stdout.readline() == "began\n"
                # W&B's own process will wait for the server, and whoever ends it for that process.
                server.delay = 3600
                assert process.communicate("\n", timeout=60) == ("ended\n", None)
            finally:
                process.kill()
