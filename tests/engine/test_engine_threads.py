import threading

import pytest
import torch

from workbench.engine.jobs import JobRunner
from workbench.engine.threads import all_threads, one_thread


def test_torch_uses_one_thread_inside_and_as_many_as_before_after() -> None:
    before = torch.get_num_threads()
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


def test_an_error_inside_changes_nothing_for_good() -> None:
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError), one_thread():
        _ = 1 / 0
    assert torch.get_num_threads() == before


def test_threads_that_run_meanwhile_keep_their_number_and_new_ones_can_take_all() -> None:
    mine = torch.get_num_threads()
    seen: list[int] = []
    begin, go = threading.Event(), threading.Event()

    def early() -> None:
        seen.append(torch.get_num_threads())
        begin.set()
        go.wait(10)
        seen.append(torch.get_num_threads())

    def late() -> None:
        all_threads()
        seen.append(torch.get_num_threads())

    running, new = threading.Thread(target=early), threading.Thread(target=late)
    running.start()
    assert begin.wait(10)
    with one_thread():
        go.set()
        running.join()
        new.start()
        new.join()
        assert torch.get_num_threads() == 1
    assert seen == [mine, mine, mine]


def test_a_worker_that_begins_while_a_page_computes_has_all_threads() -> None:
    before = torch.get_num_threads()
    with one_thread():
        runner = JobRunner()
        job = runner.submit("ask", "a", lambda job: torch.get_num_threads())
        assert job.wait(10)
        runner.close()
    assert job.result == before
