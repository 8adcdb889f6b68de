"""configs/cluster: each file holds what its reader takes. Those that can be run here are: test_two_machines.py."""

import shlex
import subprocess

import pytest
import ray
import yaml
from click.testing import CliRunner
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.runtime_env import RuntimeEnv

from study.__main__ import cli
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


def test_google_s_workers_reach_the_bucket_as_the_head_does():
    """Ray gives its service account, which its gcp/config.py names so, to the head alone."""
    tree = read("gcp.yaml")
    (account,) = tree["available_node_types"]["gpu"]["node_config"]["serviceAccounts"]
    assert account["email"] == f"ray-autoscaler-sa-v1@{tree['provider']['project_id']}.iam.gserviceaccount.com"


def test_a_job_takes_its_sources_along_and_nothing_large():
    tree = read("runtime_env.yaml")
    RuntimeEnv(**tree | {"working_dir": "https://example.org/x.zip"}).to_dict()
    assert tree["working_dir"] == "."


def test_a_rayjob_holds_fields_that_kuberay_knows():
    tree = read("rayjob.yaml")
    assert (tree["apiVersion"], tree["kind"]) == ("ray.io/v1", "RayJob")
    assert set(tree["spec"]) <= RAYJOB
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


def test_the_script_of_slurm_is_bash():
    subprocess.run(["bash", "-n", CLUSTER / "study.slurm"], check=True)
