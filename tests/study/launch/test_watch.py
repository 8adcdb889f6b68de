"""What a launch watches while Ray Tune is at work: signals, errors of Ray, packs that wait; no Ray is started."""

import os
import shutil
import signal
import threading
import time
from types import SimpleNamespace

import pytest

from study.config import Launching
from study.errors import RayError
from study.launch import cluster, ray_tune
from study.launch.ray_tune import Interrupted, Watch
from tests import processes


def queue(gpus=0, **recorder):
    state = {"complete": False, "idle": True, "avoided": {"n7"}} | recorder
    return SimpleNamespace(knobs=Launching(gpus_per_trial=gpus), recorder=SimpleNamespace(**state))


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(ray_tune, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(ray_tune, "WAIT_SECONDS", 0.1)
    monkeypatch.setattr(cluster, "missing", lambda knobs, without: f"{knobs.gpus_per_trial:g} GPUs, not on {without}")


def test_packs_that_wait_say_so_again_and_again(quick):
    said, often = [], threading.Event()

    def waiting(what):
        said.append(what)
        if len(said) == 3:
            often.set()

    began = time.monotonic()
    with ray_tune._patience([queue()], Watch(waiting=waiting)) as exhausted:
        assert often.wait(60)
    assert len(said) * ray_tune.WAIT_SECONDS < time.monotonic() - began
    assert set(said) == {"0 GPUs, not on {'n7'}"}
    assert exhausted == []


@pytest.mark.parametrize("state", [{"idle": False}, {"complete": True}])
def test_nobody_waits_where_packs_are_trained_or_have_ended(quick, state):
    said = []
    with ray_tune._patience([queue(**state)], Watch(waiting=said.append, wait_minutes=0.001)) as exhausted:
        time.sleep(0.3)
    assert said == exhausted == []


def test_what_takes_something_else_is_waited_for_aloud_while_others_are_trained(quick):
    """And is given up only once nothing is trained."""
    told, said, training = threading.Event(), [], queue(idle=False)

    def waiting(what):
        said.append(what)
        told.set()

    with ray_tune._patience([training, queue(gpus=2)], Watch(waiting=waiting, wait_minutes=0.002)) as exhausted:
        assert told.wait(60)
        assert exhausted == []
        training.recorder.idle = training.recorder.complete = True
        processes.until(lambda: exhausted, "the end of patience")
    assert set(said) == set(exhausted) == {"2 GPUs, not on {'n7'}"}


def test_what_takes_the_same_waits_for_its_turn_in_silence(quick):
    said = []
    with ray_tune._patience([queue(idle=False), queue()], Watch(waiting=said.append)):
        time.sleep(0.3)
    assert said == []


def test_waiting_ends_when_it_should(quick):
    with ray_tune._patience([queue()], Watch(wait_minutes=0.002)) as exhausted:
        processes.until(lambda: exhausted, "the end of patience")
    assert exhausted == ["0 GPUs, not on {'n7'}"]


def test_a_signal_is_told_at_once_and_once_while_the_main_thread_is_busy():
    told, heard = [], threading.Event()
    # These tests may run under nohup.
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)

    def interrupted(name):
        told.append((name, threading.current_thread() is threading.main_thread()))
        heard.set()

    with ray_tune._signals(interrupted) as noted:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGHUP)
        assert heard.wait(60)
    signal.signal(signal.SIGHUP, before)
    assert told == [("SIGTERM", False)]
    assert noted == ["SIGTERM", "SIGINT", "SIGHUP"]


def test_an_error_after_the_last_record_is_none():
    ended, open_ = (SimpleNamespace(complete=complete, finish=lambda: None) for complete in (True, False))
    with ray_tune._errors([ended]):
        raise FileNotFoundError("the folder that a job began in")
    with pytest.raises(Interrupted, match="FileNotFoundError"), ray_tune._errors([ended, open_]):
        raise FileNotFoundError("the folder that a job began in")
    with pytest.raises(RayError, match="a node"), ray_tune._errors([open_]):
        raise RayError("a node")


def test_work_goes_on_in_a_folder_that_stays(tmp_path, monkeypatch):
    """Ray may unpack a job's folder anew while it runs."""
    job, scratch = tmp_path / "job", tmp_path / "scratch"
    job.mkdir()
    scratch.mkdir()
    monkeypatch.chdir(job)
    with ray_tune._inside(str(scratch)):
        shutil.rmtree(job)
        assert os.getcwd() == str(scratch)
        job.mkdir()
    assert os.getcwd() == str(job)
    with ray_tune._inside(str(scratch)):
        shutil.rmtree(job)
    assert os.getcwd() == str(scratch), "there is nowhere to go back to"
    monkeypatch.undo()
