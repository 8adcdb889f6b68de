"""configs/cluster: each file holds what its reader takes. Those that can be run here are: test_two_machines.py."""

import contextlib
import os
import re
import shlex
import signal
import subprocess

import pytest
import ray
import yaml
from click.testing import CliRunner
from ray.autoscaler._private.docker import docker_start_cmds
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.runtime_env import RuntimeEnv

from study.__main__ import cli
from tests import processes
from tests.processes import ROOT

CLUSTER = ROOT / "configs" / "cluster"
RAYJOB = {
    "activeDeadlineSeconds", "backoffLimit", "clusterSelector", "deletionStrategy", "entrypoint", "entrypointNumCpus",
    "entrypointNumGpus", "entrypointResources", "jobId", "managedBy", "metadata", "rayClusterSpec", "runtimeEnvYAML",
    "shutdownAfterJobFinishes", "submissionMode", "submitterConfig", "submitterPodTemplate", "suspend",
    "ttlSecondsAfterFinished",
}  # fmt: skip
"""What KubeRay's RayJobSpec (v1) may hold; below, its RayClusterSpec and worker groups."""

RAYCLUSTER = {
    "authOptions", "autoscalerOptions", "enableInTreeAutoscaling", "gcsFaultToleranceOptions", "headGroupSpec",
    "headServiceAnnotations", "managedBy", "rayVersion", "suspend", "workerGroupSpecs",
}  # fmt: skip
GROUP = {
    "groupName", "idleTimeoutSeconds", "labels", "maxReplicas", "minReplicas", "numOfHosts", "rayStartParams",
    "replicas", "resources", "scaleStrategy", "suspend", "template",
}  # fmt: skip


def read(name):
    return yaml.safe_load((CLUSTER / name).read_text())


@pytest.mark.parametrize("name", ["local.yaml", "aws.yaml", "gcp.yaml"])
def test_cluster_files_are_what_ray_up_takes(name):
    tree = prepare_config(read(name))
    validate_config(tree)
    if name != "local.yaml":
        assert tree["available_node_types"]["head"]["resources"] == {"CPU": 0, "GPU": 0}, "no packs on the head"
        spot = yaml.safe_dump(tree["available_node_types"]["gpu"]["node_config"])
        assert "spot" in spot or "preemptible" in spot
        assert tree["docker"]["image"] == f"rayproject/ray:{ray.__version__}-py311", "a Python that setup.cfg allows"
        options = tree["docker"]["worker_run_options"]
        command = docker_start_cmds("ubuntu", "IMAGE", [], "study", options, "study", "/home/ray", "docker")
        for variable in ("NVIDIA_VISIBLE_DEVICES=all", "NVIDIA_DRIVER_CAPABILITIES=compute,utility"):
            assert f" --env {variable} " in command, "else no worker sees its GPU"


def test_own_machines_share_a_token():
    tree = read("local.yaml")
    assert tree["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    for role in ("head", "worker"):
        (start,) = [line for line in tree[f"{role}_start_ray_commands"] if "ray start" in line]
        assert "RAY_AUTH_MODE=token" in start.split()


def test_google_s_workers_reach_the_bucket_as_the_head_does():
    """Ray gives its service account, which its gcp/config.py names so, to the head alone."""
    tree = read("gcp.yaml")
    (account,) = tree["available_node_types"]["gpu"]["node_config"]["serviceAccounts"]
    assert account["email"] == f"ray-autoscaler-sa-v1@{tree['provider']['project_id']}.iam.gserviceaccount.com"


def test_google_s_disks_are_of_a_kind_that_its_machines_take_and_where_they_are():
    tree = read("gcp.yaml")
    for kind in tree["available_node_types"].values():
        (disk,) = kind["node_config"]["disks"]
        zone = tree["provider"]["availability_zone"]
        assert disk["initializeParams"]["diskType"] == f"zones/{zone}/diskTypes/pd-balanced"


def test_a_job_takes_its_sources_along_and_nothing_large():
    tree = read("runtime_env.yaml")
    RuntimeEnv(**tree | {"working_dir": "https://example.org/x.zip"}).to_dict()
    assert tree["working_dir"] == "."


def test_a_rayjob_holds_fields_that_kuberay_knows():
    tree = read("rayjob.yaml")
    assert (tree["apiVersion"], tree["kind"]) == ("ray.io/v1", "RayJob")
    assert set(tree["spec"]) <= RAYJOB
    assert tree["spec"]["backoffLimit"] == 1, "a mistake in the config too builds so many clusters more"
    cluster = tree["spec"]["rayClusterSpec"]
    assert set(cluster) <= RAYCLUSTER
    head, (gpu,) = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    assert set(gpu) <= GROUP
    assert set(head) <= GROUP - {"groupName", "replicas", "minReplicas", "maxReplicas"}
    assert head["rayStartParams"] == {"num-cpus": "0"}
    for group in (head, gpu):
        (container,) = group["template"]["spec"]["containers"]
        volumes = {volume["name"] for volume in group["template"]["spec"]["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
        owner = group["template"]["spec"]["securityContext"]
        assert owner["fsGroup"] == owner["runAsUser"], "a volume that is root's could not be written"
        assert f"--uid {owner['runAsUser']} " in (CLUSTER / "Dockerfile").read_text()
    assert gpu["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert "nvidia.com/gpu" not in head["template"]["spec"]["containers"][0]["resources"]["limits"]


def test_the_commands_in_the_files_are_commands(tmp_path):
    """What each file tells the reader to run is taken by our command line; nothing is trained."""
    found = 0
    for path in sorted(CLUSTER.iterdir()):
        text = path.read_text().replace("\\\n#", "")
        for line in text.splitlines():
            _, study, arguments = line.partition("python -m study ")
            if not study:
                _, study, arguments = line.partition("configs/cluster/run.py -- ")
            if not study or '"$@"' in line or "CONFIG" in line:
                continue
            given = shlex.split(arguments, comments=True)
            storage = [f"storage={tmp_path}/x" if word.startswith("storage=") else word for word in given]
            result = CliRunner().invoke(cli, [*storage, "--dry-run"])
            assert result.exit_code == 0, (line, result.output, result.exception)
            found += 1
    assert found >= 4


PROGRAMS = {
    "srun": 'echo "$SLURM_EXPORT_ENV $*" >>calls; while case $1 in --*) ;; *) false ;; esac; do shift; done; exec "$@"',
    "ray": "exec sleep 60",
    "scontrol": 'echo "scontrol $*" >>calls',
    "python": """case $* in
        *gethostbyname*) echo 192.0.2.1 ;;
        *create_connection*) grep --quiet --no-messages "ray start" calls ;;
        "-m study run "*) trap 'exit 130' TERM; touch running; while :; do sleep 0.01; done ;;
    esac""",
}
"""What the script of Slurm starts, as far as it asks: `srun` notes what it is given, and a study runs until SIGTERM."""


@pytest.fixture
def slurm_job(tmp_path):
    """The script of Slurm as job 1234567, on one node; its folder for Ray is below tmp_path / "scratch"."""
    for name, script in PROGRAMS.items():
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/bash\n{script}\n")
        path.chmod(0o755)
    (tmp_path / "scratch").mkdir()
    (tmp_path / "scratch" / "another user's").touch()
    slurm = {"SUBMIT_DIR": str(tmp_path), "JOB_ID": "1234567", "JOB_NUM_NODES": "1", "EXPORT_ENV": "NONE"}
    job = subprocess.Popen(
        ["bash", CLUSTER / "study.slurm", "configs/paper.yaml"],
        env={f"SLURM_{name}": value for name, value in slurm.items()}
        | {"SLURMD_NODENAME": "n1", "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
        | {"STUDY_RAY_TMPDIR": str(tmp_path / "scratch")},
        start_new_session=True,
    )
    try:
        processes.until((tmp_path / "running").exists, "the study")
        yield job
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(job.pid, signal.SIGKILL)
        job.wait()


def test_a_slurm_job_removes_the_folder_that_it_has_made_and_no_other(slurm_job, tmp_path):
    assert (tmp_path / "scratch" / "r1234567").is_dir()
    slurm_job.send_signal(signal.SIGTERM)
    assert slurm_job.wait(processes.PATIENCE) == 130
    assert os.listdir(tmp_path / "scratch") == ["another user's"]


@pytest.mark.parametrize(("number", "requeued"), [(signal.SIGUSR1, ["scontrol requeue 1234567"]), (signal.SIGTERM, [])])
def test_a_slurm_job_comes_back_after_its_time_limit_and_not_where_somebody_cancels_it(
    slurm_job, tmp_path, number, requeued
):
    slurm_job.send_signal(number)
    assert slurm_job.wait(processes.PATIENCE) == 130
    calls = (tmp_path / "calls").read_text().splitlines()
    assert [call for call in calls if call.startswith("scontrol")] == requeued


def test_a_slurm_job_shares_a_node_with_others_and_hands_its_environment_on(slurm_job, tmp_path):
    calls = (tmp_path / "calls").read_text()
    assert re.match(r"ALL .* ray start .* --port=29134 --ray-client-server-port=29135 ", calls)
