"""Processes that are forked while another thread explains, such as workers of a data loader."""

import os
import signal
import threading
import time

import pytest
import torch

from captum_meta.attr import MetaKernelShap
from captum_meta.attr._arithmetic import plain_arithmetic
from tests.attr.conftest import CountingModel, untrained


def in_child(work: object) -> int:
    """Exit status of a forked child that runs ``work``; -9 if it hangs for 30 seconds."""
    child = os.fork()
    if child == 0:
        try:
            work()  # type: ignore[operator]
            os._exit(0)
        except BaseException:
            os._exit(1)
    end = time.monotonic() + 30
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_child_explains_though_another_thread_did_when_it_was_forked() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # OpenMP itself does not survive a fork
    x, attr = torch.randn(2, 6), MetaKernelShap(CountingModel(), learner=untrained("shapley"))
    expected = attr.attribute(x, target=0)
    explaining, told = threading.Event(), threading.Event()

    def explain() -> None:
        with plain_arithmetic(x.device):
            explaining.set()
            time.sleep(0.3)
            told.set()

    def work() -> None:
        assert torch.equal(attr.attribute(x, target=0), expected)

    other = threading.Thread(target=explain)
    other.start()
    explaining.wait()
    try:
        assert in_child(work) == 0
        assert told.is_set()  # the fork waited until no module held the weights of a task
        assert torch.equal(attr.attribute(x, target=0), expected)
    finally:
        other.join()
        torch.set_num_threads(threads)
