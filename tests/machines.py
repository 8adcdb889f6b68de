"""Machines on this one: sets of Linux namespaces with an address, a home, a temporary folder for Ray and an sshd each.

What needs several machines, such as `ray up` or Slurm, is tried on them for real. Processes on one do not see those of
another, so that `ray stop` ends its own alone; files outside its home and /tmp/ray are shared, as on a common mount.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from tests.processes import PATIENCE, ROOT

NETWORK = "10.83.0"
NEEDED = ("unshare", "nsenter", "ip", "mount", "sshd", "ssh", "ssh-keygen", "rsync")
HOME = Path("/root")
BIN = Path(sys.executable).parent


def lacking(*programs: str) -> str | None:
    """Why machines cannot be made here, if they cannot: no root, no namespaces, no such program."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return "machines are made by root on Linux"
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    if absent := [program for program in (*NEEDED, *programs) if shutil.which(program, path=path) is None]:
        return f"not installed: {', '.join(absent)}"
    tried = subprocess.run(["unshare", "--net", "--pid", "--mount", "--uts", "--fork", "true"], capture_output=True)
    return None if tried.returncode == 0 else f"no namespaces: {tried.stderr.decode().strip()}"


class Machine:
    """One of them; the first of a lab is the laptop, from which commands are given."""

    def __init__(self, lab: Lab, number: int, name: str) -> None:
        self.name = name
        self.address = f"{NETWORK}.{number}"
        self.folder = lab.folder / name
        self._lab = lab
        self.home = self.folder / "home"
        for part in ("home/.ssh", "ray", "run/sshd"):
            (self.folder / part).mkdir(parents=True)
        path = f"{BIN}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
        for file in (".bashrc", ".profile"):
            (self.home / file).write_text(f"export PATH={path} RAY_USAGE_STATS_ENABLED=0 PYTHONUNBUFFERED=1\n")
        # It dies with this process, and with it all that runs on it.
        flags = ["--net", "--pid", "--mount", "--uts", "--fork", "--kill-child", "--mount-proc"]
        self._outer = subprocess.Popen(
            ["unshare", *flags, "sleep", "infinity"], stderr=subprocess.DEVNULL, start_new_session=True
        )
        self.pid = _child(self._outer.pid)
        self.inside(f"hostname {name}; ip link set lo up; mount --make-rprivate /")
        # The python that runs these tests may live in the home that is about to be covered.
        for kept in {Path(sys.base_prefix).resolve(), Path(sys.prefix).resolve(), ROOT.resolve()}:
            if kept.is_relative_to(HOME):
                target = self.home / kept.relative_to(HOME)
                self.inside(f"mkdir -p {target} && mount --bind {kept} {target}")
        self.inside(
            f"mount --rbind {self.home} {HOME}; mkdir -p /tmp/ray; mount --bind {self.folder / 'ray'} /tmp/ray;"
            f"mount --bind {self.folder / 'run'} /run; mount --bind {lab.folder / 'hosts'} /etc/hosts"
        )

    def inside(self, script: str) -> None:
        """Run a script of the shell on this machine, such as one that mounts."""
        subprocess.run(self.command("sh", "-ec", script), check=True)

    def command(self, *arguments: object) -> list[str]:
        """What runs a command on this machine."""
        inside = ["nsenter", f"--target={self.pid}", "--net", "--pid", "--mount", "--uts"]
        return [*inside, "bash", "-c", 'cd; . ~/.bashrc; exec "$@"', "-", *map(str, arguments)]

    def start(self, *arguments: object, **variables: str) -> subprocess.Popen[str]:
        """Start a command; its output, errors among it, can be read."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "WANDB_", "PYTHON", "VIRTUAL_"))}
        return subprocess.Popen(
            self.command(*arguments),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=kept | {"HOME": str(HOME)} | variables,
            start_new_session=True,
        )

    def run(self, *arguments: object, timeout: float = 120, **variables: str) -> str:
        """Run a command to its end, which has to be a good one; what it printed."""
        process = self.start(*arguments, **variables)
        try:
            output, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise AssertionError(f"{arguments} still runs after {timeout} s: {process.communicate()[0]}") from None
        assert process.returncode == 0, f"{arguments}: {output}"
        return output

    def serve(self) -> None:
        """Let the laptop in by ssh."""
        shutil.copy(self._lab.key.with_suffix(".pub"), self.home / ".ssh" / "authorized_keys")
        settings = {
            "ListenAddress": self.address,
            "HostKey": self._lab.host_key,
            "AuthorizedKeysFile": "/root/.ssh/authorized_keys",
            "PidFile": "/run/sshd.pid",
            "StrictModes": "no",
            "UsePAM": "no",
            "PasswordAuthentication": "no",
            "PermitRootLogin": "prohibit-password",
        }
        path = self.folder / "sshd_config"
        path.write_text("".join(f"{key} {value}\n" for key, value in settings.items()))
        self.run(shutil.which("sshd", path="/usr/sbin:/usr/local/sbin"), "-f", path)

    def kill(self) -> None:
        """Cut the power."""
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(self.pid).kill()
        self._outer.wait()


class Lab:
    """A laptop and, once they are added, machines that it reaches."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.machines: list[Machine] = []
        (folder / "hosts").write_text("127.0.0.1 localhost\n")
        self.key, self.host_key = folder / "key", folder / "host_key"
        for key in (self.key, self.host_key):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        self.laptop = self._add("laptop", 254)
        self.laptop.run(
            "sh", "-ec", f"ip link add br0 type bridge; ip addr add {NETWORK}.254/24 dev br0; ip link set br0 up"
        )

    def add(self, name: str) -> Machine:
        """One more machine."""
        number = len(self.machines)
        machine = self._add(name, number)
        port = f"v{number}"
        laptop = ["nsenter", f"--target={self.laptop.pid}", "--net"]
        link = ["ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", str(machine.pid)]
        subprocess.run([*laptop, *link], check=True)
        self.laptop.run("ip", "link", "set", port, "master", "br0", "up")
        machine.run("sh", "-ec", f"ip addr add {machine.address}/24 dev eth0; ip link set eth0 up")
        machine.serve()
        return machine

    def _add(self, name: str, number: int) -> Machine:
        # Written in place: every machine has it mounted.
        with (self.folder / "hosts").open("a") as hosts:
            hosts.write(f"{NETWORK}.{number} {name}\n")
        self.machines.append(Machine(self, number, name))
        return self.machines[-1]

    def stop(self) -> None:
        """Cut the power of all of them."""
        for machine in reversed(self.machines):
            machine.kill()


def _child(pid: int) -> int:
    end = time.monotonic() + 60
    while not (children := psutil.Process(pid).children()):
        assert time.monotonic() < end, "unshare has started nothing"
        time.sleep(0.01)
    # The command itself, not the moment before it is there.
    while children[0].name() != "sleep":
        time.sleep(0.01)
    return children[0].pid


def lines(process: subprocess.Popen[str], until: Sequence[str]) -> list[str]:
    """What a process prints until a line holds one of some texts."""
    found: list[str] = []
    end = time.monotonic() + PATIENCE
    assert process.stdout is not None
    for line in process.stdout:
        found.append(line)
        if any(text in line for text in until):
            return found
        assert time.monotonic() < end, f"no {until} in: {''.join(found)}"
    raise AssertionError(f"ended without {until}: {''.join(found)}")
