"""Signals: an answer to a question, asked once a step."""

import os
import signal
import threading
import types

import pytest

from fmjax import checkpoint
from fmjax.keeping import signals
from tests import runs


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_is_an_answer_and_not_the_end(name):
    number = getattr(signal, name)
    before = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)}
    with signals.preemption() as asked:
        assert not asked(1)
        os.kill(os.getpid(), number)
        assert asked(1)
        assert asked(2)
        os.kill(os.getpid(), number)  # asked twice is no harm
    assert {s: signal.getsignal(s) for s in before} == before


def test_handlers_are_restored_after_an_error():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(ZeroDivisionError), signals.preemption():
        # Zero only where the handler is not the old one any more.
        print(1 / (signal.getsignal(signal.SIGTERM) is before))
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_while_the_last_state_is_written_ends_nothing(
    tmp_path, monkeypatch, name
):
    closed = checkpoint.Checkpoints.close

    def close(store):  # which waits until all is written
        os.kill(os.getpid(), getattr(signal, name))
        closed(store)

    # Outside of a run it would end these tests.
    monkeypatch.setattr(checkpoint.Checkpoints, "close", close)
    came = []
    old = signal.signal(getattr(signal, name), lambda *_: came.append(name))
    try:
        tiny = runs.tiny("configs/cnn/fashion_mnist.py", evaluate=None)
        result = runs.run(tmp_path / "a", tiny, stop_at=2)
    finally:
        signal.signal(getattr(signal, name), old)
    assert came == []
    assert (result["status"], result["step"]) == ("stopped", 2)
    assert (tmp_path / "a" / "checkpoints" / "2").is_dir()


def test_each_run_is_asked_anew():
    with signals.preemption() as asked:
        os.kill(os.getpid(), signal.SIGTERM)
        assert asked(0)
    with signals.preemption() as asked:
        assert not asked(0)


def test_outside_the_main_thread_it_leaves_signals_alone():
    found = types.SimpleNamespace()

    def work():
        with signals.preemption() as asked:
            found.asked = asked(0)
            found.handler = signal.getsignal(signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert (found.asked, found.handler) == (False, before)
