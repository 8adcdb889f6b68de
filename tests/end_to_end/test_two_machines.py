"""Studies on machines of their own, by the files of configs/cluster: `ray up` and `ray submit`, `ray job submit`,
Slurm; and `cluster check`, which has to find each fault of a node.
"""

import json
import re
import secrets
import shutil
import subprocess
import tempfile
import threading
import time
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import yaml

from study.launch import node
from tests import machines, processes
from tests.machines import Lab, lines
from tests.processes import ROOT

CLUSTER = ROOT / "configs" / "cluster"
LIMITS = "--num-cpus=1 --object-store-memory=200000000"
HEAD = "--num-cpus=0 --object-store-memory=200000000"
SLURM = ("slurmctld", "slurmd", "sbatch", "munged")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(machines.lacking() is not None, reason=f"no machines to be had here: {machines.lacking()}"),
]


@pytest.fixture
def lab():
    # Not below pytest's own: the paths of Ray's sockets may have 107 characters.
    with tempfile.TemporaryDirectory(prefix="lab-", ignore_cleanup_errors=True) as folder:
        lab = Lab(Path(folder))
        yield lab
        lab.stop()


def until(process, condition, what):
    """Wait for a condition while a process runs."""
    try:
        processes.until(lambda: condition() or process.poll() is not None, what)
        assert process.poll() is None, "it has ended"
    except AssertionError as error:
        process.kill()
        raise AssertionError(f"{error}; it printed:\n{process.communicate()[0]}") from None


def provenances(folder):
    return [json.loads(path.read_bytes())["provenance"] for path in (folder / "runs").glob("*.json")]


@pytest.fixture
def cluster(lab):
    """Ray on two machines: the machines, and the variables with which it is joined."""
    head, worker = lab.add("n1"), lab.add("n2")
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    head.run("ray", "start", "--head", *LIMITS.split(), "--include-dashboard=false", **token)
    worker.run("ray", "start", f"--address={head.address}:6379", *LIMITS.split(), **token)
    return head, worker, token


def test_a_check_of_the_cluster_tells_each_fault_of_a_node_in_a_line_and_a_study_does_without_it(
    cluster, undisturbed, place
):
    head, worker, token = cluster
    config, storage = processes.config(place), place / "storage"
    storage.mkdir()

    def check():
        process = head.start("python", "-m", "study", "cluster", "check", config, "--address", "auto", **token)
        lines = process.communicate(timeout=processes.PATIENCE)[0].splitlines()
        return process.returncode, [line.rstrip() for line in lines if line]

    code, (header, *table, expected, last) = check()
    assert code == 0
    assert header.split() == ["node", "CPUs", "GPUs", "memory", "fit"]
    assert [re.sub(r"\d+ (GiB|free)", r"N \1", " ".join(line.split())) for line in table] == [
        f"{name} 1 0 N GiB, N free yes" for name in ("n1", "n2")
    ]
    assert expected.endswith(f"numpy {np.__version__}, sources of study {node.sources()}")
    assert last == f"storage: {storage}/small"

    worker.inside(f"mount --bind {storage} {storage}; mount -o remount,ro,bind {storage}")
    code, (*_, fault, _) = check()
    assert code == 1
    assert re.fullmatch(rf"n2: storage: cannot write {storage}/small/\S+: Read-only file system", fault)

    # As on a machine with another numpy, another copy of this package, and a folder of its own.
    numpy = metadata.distribution("numpy").locate_file(f"numpy-{np.__version__}.dist-info/METADATA")
    source = Path(node.__file__)
    for path, other in {
        numpy: numpy.read_text().replace(f"\nVersion: {np.__version__}", "\nVersion: 1.0.0"),
        source: source.read_text() + "# of another version\n",
    }.items():
        (place / path.name).write_text(other)
        worker.inside(f"mount --bind {place / path.name} {path}")
    (place / "own").mkdir()
    worker.inside(f"umount {storage}; mount --bind {place / 'own'} {storage}")
    code, (*_, package, version, shared, _) = check()
    assert code == 1
    assert package == f"n2: numpy 1.0.0, and the driver has {np.__version__}"
    assert re.fullmatch(
        rf"n2: its sources of study \([0-9a-f]{{12}}\) are not the driver's \({node.sources()}\)", version
    )
    assert shared.startswith(f"n2: its {storage}/small is not the driver's: what the driver wrote is not there")

    worker.inside(f"umount {numpy}; umount {source}")
    output = head.run("python", "-m", "study", "run", config, "--address", "auto", timeout=processes.PATIENCE, **token)
    assert output.count(f"n2 is not used from now on: its {storage}/small is not the driver's") == 1
    assert "died" not in output
    assert {(p["node"], p["attempts"]) for p in provenances(storage / "small")} == {("n1", 1)}
    processes.assert_same(storage / "small", undisturbed)


def cluster_file(lab, head, worker):
    """configs/cluster/local.yaml for two machines of a lab."""
    tree = yaml.safe_load((CLUSTER / "local.yaml").read_text())
    tree["cluster_name"] = f"lab-{secrets.token_hex(4)}"
    tree["provider"] |= {"head_ip": head.address, "worker_ips": [worker.address]}
    tree["auth"] = {"ssh_user": "root", "ssh_private_key": str(lab.key)}
    tree |= {"min_workers": 1, "max_workers": 1}
    tree["file_mounts"]["~/study"] = str(ROOT)
    # The head trains nothing: what is left when the worker dies is then left for those that join.
    for key, limits in {"head_start_ray_commands": HEAD, "worker_start_ray_commands": LIMITS}.items():
        tree[key] = [f"{line} {limits}" if "ray start" in line else line for line in tree[key]]
    path = lab.folder / "local.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def test_ray_up_and_submit_while_a_machine_dies_and_others_join_of_which_one_is_not_fit(lab, longer, place):
    head, worker, rotten, sound = (lab.add(f"n{k}") for k in range(1, 5))
    shutil.copytree(ROOT / "study", rotten.home / "study" / "study")
    changed = rotten.home / "study" / "study" / "seeding.py"
    changed.write_text(changed.read_text() + "# of another version\n")
    (sound.home / "study").symlink_to(ROOT)
    path, folder = cluster_file(lab, head, worker), place / "storage" / "small"
    config = processes.config(place, **processes.LONGER)
    lab.laptop.run("ray", "get-auth-token", "--generate")
    token = (lab.laptop.home / ".ray" / "auth_token").read_text()
    lab.laptop.run("ray", "up", "-y", path)
    study = ["run", config, "--report", "--address", "auto", "--wait-minutes", "2"]
    process = lab.laptop.start("ray", "submit", path, CLUSTER / "run.py", "--", *study)
    try:
        until(
            process,
            # A pack's checkpoint goes after its records have come.
            lambda: (
                (ended := {p["pack_id"] for p in provenances(folder)})
                and {path.stem for path in folder.glob("checkpoints/*.pt")} - ended
            ),
            "a pack that has ended, and one that has not",
        )
        worker.kill()
        for machine in (rotten, sound):
            secret = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
            machine.run("ray", "start", f"--address={head.address}:6379", *LIMITS.split(), **secret)
        output, _ = process.communicate(timeout=processes.PATIENCE)
    finally:
        process.kill()
    assert process.returncode == 0, output
    processes.assert_same(folder, longer)
    assert {p["node"] for p in provenances(folder)} == {"n2", "n4"}, output
    assert "n3 is not used from now on: its sources of study" in output
    assert max(p["attempts"] for p in provenances(folder)) == 2, "the pack that the dead machine had; n3 cost none"
    assert (folder / "report" / "index.html").exists()


def test_a_submitted_job_is_stopped_and_submitted_again(lab, longer, place):
    head = lab.add("n1")
    token = secrets.token_hex(32)
    secret = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    config, folder = processes.config(place, **processes.LONGER), place / "storage" / "small"
    head.run("ray", "start", "--head", *LIMITS.split(), f"--dashboard-host={head.address}", **secret)
    commit = "0123456789abcdef0123456789abcdef01234567"
    address = ["--address", f"http://{head.address}:8265"]
    submit = ["ray", "job", "submit", *address, "--working-dir", ROOT, "--runtime-env", CLUSTER / "runtime_env.yaml"]
    study = ["env", f"STUDY_COMMIT={commit}-dirty", "python", "-m", "study", "run", config, "--address", "auto"]
    process = lab.laptop.start(*submit, "--submission-id", "first", "--", *study, **secret)
    try:
        until(process, lambda: list(folder.glob("checkpoints/*.pt")), "an epoch")
        lab.laptop.run("ray", "job", "stop", *address, "first", **secret)
        first, _ = process.communicate(timeout=processes.PATIENCE)
    finally:
        process.kill()
    assert "stopped by SIGTERM; every ended run is kept; to go on: python -m study run" in first
    assert not (folder / "driver.lock").exists()
    second = lab.laptop.run(*submit, "--submission-id", "second", "--", *study, timeout=processes.PATIENCE, **secret)
    assert "succeeded" in second.lower()
    processes.assert_same(folder, longer)
    told = provenances(folder)
    assert {(p["git_commit"], p["git_dirty"]) for p in told} == {(commit, True)}
    assert max(p["attempts"] for p in told) == 2, "the pack that was stopped"
    assert token not in first + second


def test_a_submitted_job_keeps_its_study_in_an_object_store(lab, longer, place):
    """The head reaches it by variables that it was started with, and hands them on; nothing else is shared."""
    head, worker = lab.add("n1"), lab.add("n2")
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    keys = {"AWS_ACCESS_KEY_ID": "AKIAABCDEFGHIJKLMNOP", "AWS_SECRET_ACCESS_KEY": secrets.token_hex(20)}
    keys |= {"AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"}
    store = f"{lab.laptop.address}:5000"
    server = lab.laptop.start("moto_server", "--host=0.0.0.0", "--port=5000")
    try:
        lines(server, ["Running on"])
        # Else it would wait for somebody to read what it says of each request.
        threading.Thread(target=server.communicate, daemon=True).start()
        bucket = f"import boto3; boto3.client('s3', endpoint_url='http://{store}').create_bucket(Bucket='bucket')"
        lab.laptop.run("python", "-c", bucket, **keys)
        # All is trained on the machine that has no keys of its own.
        head.run("ray", "start", *HEAD.split(), "--head", f"--dashboard-host={head.address}", **token, **keys)
        join = [*LIMITS.split(), f"--address={head.address}:6379"]
        worker.run("ray", "start", *join, **token, AWS_EC2_METADATA_DISABLED="true")
        submit = ["ray", "job", "submit", "--address", f"http://{head.address}:8265", "--working-dir", ROOT]
        config = processes.config(place, **processes.LONGER, launch={"workers": 2})
        storage = f"s3://bucket/studies?endpoint_override={store}&scheme=http"
        study = ["python", "-m", "study", "run", config, f"storage={storage}", "--report", "--address", "auto"]
        output = lab.laptop.run(
            *submit, "--runtime-env", CLUSTER / "runtime_env.yaml", "--", *study, timeout=processes.PATIENCE, **token
        )
        kept = storage.replace("studies?", "studies/small?")
        lab.laptop.run("python", "-m", "study", "export", kept, place / "small.zip", **keys)
    finally:
        server.kill()
    assert "succeeded" in output.lower()
    assert "studies/small/report/index.html" in output
    assert keys["AWS_SECRET_ACCESS_KEY"] not in output
    shutil.unpack_archive(place / "small.zip", place / "small")
    processes.assert_same_records(place / "small", longer)
    assert {p["node"] for p in provenances(place / "small")} == {"n2"}


SETTINGS = """
ClusterName=lab
SlurmctldHost=laptop({laptop})
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=/run/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
KillWait=5
{nodes}
PartitionName=all Nodes=n[1-2] Default=YES MaxTime=INFINITE State=UP
"""


ENDED = ("COMPLETED", "FAILED", "CANCELLED")
"""States of a Slurm job."""


@pytest.fixture
def slurm(lab):
    """Slurm on two machines; commands of it are given on the laptop with these variables."""
    folder = lab.folder / "slurm"
    for name in ("state", "spool.n1", "spool.n2"):
        (folder / name).mkdir(parents=True)
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o400)
    nodes = [lab.add("n1"), lab.add("n2")]
    described = [f"NodeName={n.name} NodeAddr={n.address} CPUs=1 RealMemory=1000 State=UNKNOWN" for n in nodes]
    path = folder / "slurm.conf"
    path.write_text(SETTINGS.format(folder=folder, laptop=lab.laptop.address, nodes="\n".join(described)))
    variables = {"SLURM_CONF": str(path)}
    for machine in (lab.laptop, *nodes):
        files = {name: f"--{name}-file=/run/munge.{name}" for name in ("pid", "log", "seed")}
        machine.run("munged", "--force", f"--key-file={key}", "--socket=/run/munge.socket", *files.values())
    lab.laptop.run("slurmctld", **variables)
    for machine in nodes:
        machine.run("slurmd", "-N", machine.name, **variables)
    return variables


@pytest.mark.skipif(machines.lacking(*SLURM) is not None, reason=f"no Slurm to be had here: {machines.lacking(*SLURM)}")
def test_a_slurm_job_is_requeued_before_its_time_is_up_and_goes_on(lab, slurm, longer, place):
    config, folder = processes.config(place, **processes.LONGER), place / "storage" / "small"
    output = place / "job.log"
    options = [f"--chdir={ROOT}", f"--output={output}", "--cpus-per-task=1", "--parsable"]

    def submit(*overrides):
        # The machines of a lab share /tmp, but for /tmp/ray.
        command = ["sbatch", *options, CLUSTER / "study.slurm", config, *overrides]
        return lab.laptop.run(*command, **slurm, STUDY_RAY_TMPDIR="/tmp/ray").strip()

    def state(job):
        told = lab.laptop.run("scontrol", "show", "job", job, **slurm)
        return {key: re.search(rf"\b{key}=(\S+)", told)[1] for key in ("JobState", "Restarts", "ExitCode")}

    job = submit()
    try:
        processes.until(lambda: len(list(folder.glob("checkpoints/*.pt"))) == 2, "a pack on each machine")
        # As Slurm does a minute and a half before the time limit.
        lab.laptop.run("scancel", "--batch", "--signal=USR1", job, **slurm)
        # Not just counted: while the job still ends, its time to start cannot be set.
        processes.until(lambda: (state(job)["JobState"], state(job)["Restarts"]) == ("PENDING", "1"), "the requeue")
        assert not (folder / "driver.lock").exists()
        # Else Slurm would wait for two minutes. Not at once: nodes may refuse a job in the second of its requeue.
        time.sleep(2)
        lab.laptop.run("scontrol", "update", f"JobId={job}", "StartTime=now", **slurm)
        processes.until(lambda: state(job)["JobState"] in ENDED, "the end of the job")
    except (AssertionError, subprocess.SubprocessError) as error:
        raise AssertionError(f"{error}\n{output.read_text() if output.exists() else 'no output'}") from None
    assert state(job) == {"JobState": "COMPLETED", "Restarts": "1", "ExitCode": "0:0"}, output.read_text()
    assert f"job {job} is requeued and goes on" in output.read_text()
    processes.assert_same(folder, longer)
    # The packs on both machines are those that went on; a machine that is fast may then have ended both.
    assert {p["node"] for p in provenances(folder)} <= {"n1", "n2"}
    assert (folder / "report" / "index.html").exists()
    # What ends otherwise ends so for Slurm too, and is not started again.
    job = submit("training.epochs=many")
    processes.until(lambda: state(job)["JobState"] in ENDED, "the end of a job with a mistake")
    assert state(job) == {"JobState": "FAILED", "Restarts": "0", "ExitCode": "2:0"}, output.read_text()
    assert "training.epochs: found 'many'" in output.read_text()
    # Nor is what somebody cancels; its state is told once all that it started has ended.
    job, folder = submit("name=cancelled"), place / "storage" / "cancelled"
    processes.until(lambda: list(folder.glob("checkpoints/*.pt")), "a pack of another study")
    lab.laptop.run("scancel", job, **slurm)
    processes.until(lambda: state(job)["JobState"] in ENDED, "the end of a job that is cancelled")
    told = state(job)
    assert (told["JobState"], told["Restarts"]) == ("CANCELLED", "0"), output.read_text()
