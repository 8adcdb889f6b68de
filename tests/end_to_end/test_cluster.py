"""Two nodes on this machine, by Ray's own means; one of them is taken away while a study trains."""

import re

import pytest
from ray.cluster_utils import Cluster

from tests import processes

pytestmark = pytest.mark.slow


@pytest.fixture
def cluster():
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    yield cluster
    cluster.shutdown()


def test_a_lost_node_costs_nothing(longer, place, cluster):
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    cluster.wait_for_nodes()
    folder = place / "storage" / "small"
    process = processes.start("run", processes.config(place, **processes.LONGER), "--address", cluster.address)
    try:
        processes.until(lambda: len(processes.durable(folder)) >= 2, "an epoch on each node")
        cluster.remove_node(nodes[0], allow_graceful=False)
        output, _ = process.communicate(timeout=processes.PATIENCE)
    finally:
        process.kill()
    assert process.returncode == 0, output
    assert "its worker died; started again" in output
    processes.assert_same(folder, longer)


@pytest.mark.parametrize("knob", ["cpus_per_trial=1024", "gpus_per_trial=64"])
def test_more_than_this_machine_has_is_refused(place, knob):
    """Ray would wait for it for ever."""
    path, (key, found) = processes.config(place), knob.split("=")
    code, output = processes.run("run", path, f"launch.{knob}", own_ray=True)
    assert code == 2, output
    assert re.search(rf"^error: {path}: launch.{key}: found {found}; allowed: at most \d+$", output, re.MULTILINE)


def test_more_than_a_cluster_has_now_is_said_and_waited_for_as_long_as_allowed(place):
    path = processes.config(place)
    code, output = processes.run("run", path, "launch.cpus_per_trial=1024", "--wait-minutes", "0.1")
    assert code == 5, output
    assert "launch.cpus_per_trial: found 1024; allowed: at most 2 on a node of this cluster now" in output
    said = r"error: waited 0\.1 minutes, in vain: a pack takes 1024 CPUs of one node; there are: \S+ \(2 CPUs\); free "
    assert re.search(said, output), output
    assert not (place / "storage" / "small" / "driver.lock").exists()


def test_a_relative_storage_is_refused_on_a_cluster(place):
    code, output = processes.run("run", processes.config(place), "storage=results", "--address", "auto")
    assert code == 2
    assert "found 'results'; allowed with --address: an absolute path on a shared mount, or a URI" in output
