"""On which nodes a study places its packs; a signal while Ray starts. A cluster that is joined: test_ray_tune.py."""

import contextlib
import dataclasses
import io
import os
import pickle
import signal
import sys
import time
from collections import defaultdict

import pytest
from rich.console import Console

from study.config import Launching
from study.config_file import load
from study.launch import cluster, node
from study.launch.cluster import NODE_ID, Placement, connected, elsewhere
from study.ledger.storage import Storage

NODES = [
    {"NodeID": "head", "Alive": True, "Resources": {}, "NodeManagerAddress": "10.0.0.1"},
    {"NodeID": "cpu", "Alive": True, "Resources": {"CPU": 4.0}, "NodeManagerAddress": "10.0.0.2"},
    {"NodeID": "gpu", "Alive": True, "Resources": {"CPU": 4.0, "GPU": 1.0}, "NodeManagerAddress": "10.0.0.3"},
    {"NodeID": "gone", "Alive": False, "Resources": {"CPU": 4.0, "GPU": 1.0}, "NodeManagerAddress": "10.0.0.4"},
]


@pytest.fixture
def nodes(monkeypatch):
    monkeypatch.setattr(
        cluster.ray, "nodes", lambda: [{**node, "NodeManagerHostname": node["NodeID"]} for node in NODES]
    )
    monkeypatch.setattr(cluster.ray, "available_resources", lambda: {})
    monkeypatch.setattr(cluster, "_avoided", defaultdict(set))


def test_a_node_is_another_only_if_it_has_what_a_pack_takes(nodes):
    assert elsewhere(Launching(), {"gpu"})
    assert not elsewhere(Launching(), {"cpu", "gpu"}), "a head without CPUs takes no pack, nor does a dead node"
    assert not elsewhere(Launching(gpus_per_trial=0.5), {"gpu"})
    assert cluster.nodes_at("10.0.0.3") == {"gpu"}
    assert cluster.nodes_at("10.0.0.4") == set()


def test_a_node_without_cuda_still_trains_on_its_cpu(nodes, monkeypatch):
    asked = []
    monkeypatch.setattr(cluster, "placement_group", lambda *given, **more: asked.append(more["bundle_label_selector"]))
    # As Tune has them: unpickled, from before the first node was avoided.
    knobs = [Launching(gpus_per_trial=1), Launching()]
    placements = pickle.loads(pickle.dumps([Placement([cluster.bundle(k)]) for k in knobs]))
    cluster.avoided(knobs[0]).add("gpu")
    for placement in placements:
        placement.to_placement_group()
    assert asked == [[{NODE_ID: "!in(gpu)"}], None]
    assert "not fit" in cluster.missing(knobs[0], cluster.avoided(knobs[0]))
    assert "not fit" not in cluster.missing(knobs[1], cluster.avoided(knobs[1]))


def test_a_check_gives_nodes_the_variables_that_workers_get(monkeypatch):
    given = []
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
    monkeypatch.setattr(cluster.os, "environ", keys | {"HOME": "/root"})
    monkeypatch.setattr(cluster, "connected", contextlib.nullcontext)
    monkeypatch.setattr(cluster, "_ask_all", lambda *asked: given.extend(asked) or [])
    monkeypatch.setattr(cluster, "lack", lambda knobs: None)
    monkeypatch.setattr(Storage, "write", lambda self, name, content: None)
    monkeypatch.setattr(Storage, "delete", lambda self, name: None)
    config = load(
        "configs/smoke.yaml", ["storage=s3://bucket/studies?endpoint_override=127.0.0.1:1&scheme=http&region=r"]
    )
    assert cluster.check("auto", Console(file=io.StringIO()), config) == 0
    assert given[-1] == keys


@pytest.mark.parametrize(
    ("overrides", "counted", "gpus", "fault"),
    [
        (None, 1, (), "CUDA does not work: no driver"),
        (None, 2, ("A100",), "CUDA computes on 1 of the 2 GPUs that Ray counts"),
        (["launch.gpus_per_trial=0.25"], 2, ("A100",), "CUDA computes on 1 of the 2 GPUs that Ray counts"),
        (["launch.gpus_per_trial=1"], 1, (), "CUDA does not work: no driver"),
        ([], 1, (), None),
        (None, 0, (), None),
        (["launch.gpus_per_trial=1"], 0, (), None),
        (None, 2, ("A100", "A100"), None),
    ],
)
def test_a_check_asks_for_every_gpu_that_ray_counts_unless_the_study_takes_none(
    monkeypatch, tmp_path, overrides, counted, gpus, fault
):
    info = {"NodeManagerHostname": "n1", "Resources": {"CPU": 4.0} | ({"GPU": float(counted)} if counted else {})}
    facts = dataclasses.replace(node.facts(), gpus=gpus, cuda=None if gpus else "no driver")
    monkeypatch.setattr(cluster, "connected", contextlib.nullcontext)
    monkeypatch.setattr(cluster, "_ask_all", lambda *asked: [(info, facts, time.time())])
    monkeypatch.setattr(cluster, "lack", lambda knobs: None)
    config = None if overrides is None else load("configs/smoke.yaml", [f"storage={tmp_path}", *overrides])
    said = io.StringIO()
    assert cluster.check("auto", Console(file=said, width=200), config) == (0 if fault is None else 1)
    assert [line for line in said.getvalue().splitlines() if "CUDA" in line] == ([f"n1: {fault}"] if fault else [])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("fails", [False, True])
def test_a_termination_is_not_lost_where_a_destructor_swallows_what_rays_handler_raises(monkeypatch, fails):
    class Swallows:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGTERM)

    def init(**options):
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))
        Swallows()
        if fails:
            raise ConnectionError("the handler has ended what was to answer")

    monkeypatch.setattr(cluster.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(cluster.ray, "init", init)
    monkeypatch.setattr(cluster.ray, "shutdown", lambda: None)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), connected(None):
        raise AssertionError("nothing may begin")
    assert signal.getsignal(signal.SIGTERM) is before
