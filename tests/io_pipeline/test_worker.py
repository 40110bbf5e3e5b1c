"""The child's side: what it answers, what it leaves behind, and when it ends."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from fresco_core.errors import ClipError
from io_pipeline.blocks import Block, Layout
from io_pipeline.channel import Channel, ChannelClosed
from io_pipeline.records import LONGEST, Record
from io_pipeline.worker import (
    Done,
    Failed,
    FatalError,
    OutOfDeviceMemory,
    Progress,
    Ready,
    Stage,
    Task,
    TaskError,
)
from tests.faults import stages
from tests.faults.stages import Calls, DetailedError, task


class Child:
    """A worker process and the other end of its socket."""

    def __init__(self, stage: Stage | None = None) -> None:
        ours, theirs = socket.socketpair()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "io_pipeline.worker", str(theirs.fileno()), "test"],
            pass_fds=[theirs.fileno()],
            stderr=subprocess.PIPE,
            text=True,
        )
        theirs.close()
        self.channel = Channel(ours)
        if stage is not None:
            self.channel.send(stage)
            assert self.answer() == Progress("load", 0, 1)

    def answer(self) -> Any:
        return self.channel.receive()[0]

    def do(self, function: Any, *arguments: Any, blocks: tuple[Block, ...] = ()) -> Any:
        message = Task(task(function, *arguments), tuple(block.layout for block in blocks))
        self.channel.send(message, [block.descriptor for block in blocks])
        return self.answer()

    def end(self) -> tuple[int, str]:
        """Exit code, and what it wrote."""
        _, output = self.process.communicate(timeout=10)
        return self.process.returncode, output

    def close(self) -> None:
        self.channel.close()
        self.process.kill()
        self.end()


@pytest.fixture(scope="module")
def shared() -> Iterator[Child]:
    child = Child(Calls())
    assert child.answer() == Ready({"pid": child.process.pid})
    yield child
    child.channel.close()
    assert child.end() == (0, "")


@pytest.fixture
def child() -> Iterator[Child]:
    child = Child(Calls())
    assert isinstance(child.answer(), Ready)
    yield child
    child.close()


def test_a_task_is_answered_by_progress_and_its_result(shared):
    assert shared.do(stages.echo, {"a": 1}) == Done({"a": 1})
    assert shared.do(stages.steps, 2, 0) == Progress("step", 1, 2)
    assert shared.answer() == Progress("step", 2, 2)
    assert shared.answer() == Done("done")


def test_a_block_is_filled_by_the_child(shared):
    with Block.create(Layout.of(a=((5, 7), "f4"))) as block:
        assert shared.do(stages.fill_first, 3, blocks=(block,)) == Done(None)
        assert (block["a"] == 3).all()


def test_a_users_error_comes_back_as_itself(shared):
    error = shared.do(stages.user_error).error
    assert type(error) is DetailedError
    assert isinstance(error, ClipError)
    assert str(error) == "a.mp4, line 7: what is wrong, what to do"
    assert error.line == 7
    assert error.exit_code == 1


def test_any_other_error_comes_back_as_a_record(shared):
    error = shared.do(stages.wrong).error
    assert type(error) is TaskError
    assert (error.type_name, error.message) == ("ZeroDivisionError", "first line")
    assert str(error) == "ZeroDivisionError: first line"
    assert 'raise ZeroDivisionError("first line\\nsecond line")' in error.trace


def test_what_cannot_be_sent_is_an_error_too(shared):
    assert shared.do(stages.unsendable_result).error.type_name == "TypeError"
    error = shared.do(stages.unsendable_error).error
    assert (error.type_name, error.message) == ("ClipError", "a.mp4: bad")


def test_what_it_logs_comes_before_what_follows(child):
    """Also what it warns of; nothing of it is written to standard error."""
    answers = [child.do(stages.log, "x" * 5000)]
    while not isinstance(answers[-1], Done):
        answers.append(child.answer())
    record, progress, warning, done = answers
    assert (record.level, record.fields) == ("info", {"logger": "library"})
    assert record.event == "x" * (LONGEST - 1) + "…"
    assert progress == Progress("step", 1, 1)
    assert warning == Record("warning", "UserWarning: slow", {"logger": "py.warnings"})
    assert done == Done(None)
    child.channel.close()
    assert child.end() == (0, "")


def test_device_memory_is_told_with_each_result(child):
    assert child.do(stages.echo, 1).memory is None
    assert child.do(stages.take_device_memory, 1 << 33).memory == 1 << 33


def test_a_task_that_cannot_be_read_is_an_error_and_not_the_end(shared):
    shared.channel.send(Unreadable())
    assert shared.answer().error.type_name == "ValueError"
    assert shared.do(stages.echo, 1) == Done(1)


class Unreadable:
    def __reduce__(self):
        return int, ("no number",)


def test_nothing_grows_over_a_thousand_tasks(shared):
    with Block.create(Layout.of(a=((10000,), "u1"))) as block:
        shared.do(stages.fill, 1, blocks=(block, block))
        before = shared.do(stages.resources)
        for _ in range(1000):
            shared.do(stages.fill, 1, blocks=(block, block))
        for _ in range(100):
            shared.do(stages.wrong, blocks=(block,))
        after = shared.do(stages.resources)
    assert before == after
    assert after.result[1] == 0


@pytest.mark.parametrize("kind", [FatalError, OutOfDeviceMemory])
def test_a_fatal_error_is_told_and_then_the_process_ends(child, kind):
    function = stages.fatal if kind is FatalError else stages.out_of_memory
    assert type(child.do(function).error) is kind
    with pytest.raises(ChannelClosed):
        child.answer()
    assert child.end() == (0, "")


def test_an_error_of_loading_is_told_and_then_the_process_ends():
    child = Child(Calls(task(stages.user_error)))
    assert isinstance(child.answer(), Failed)
    assert child.end() == (0, "")
    child.close()


def test_a_stage_that_cannot_be_read_is_told():
    child = Child()
    child.channel.send(Unreadable())
    assert child.answer().error.type_name == "ValueError"
    assert child.end() == (0, "")
    child.close()


@pytest.mark.parametrize("function", [stages.echo, stages.sleep])
def test_it_ends_when_the_socket_is_closed_idle_or_busy(child, function):
    child.channel.send(Task(task(function, 60), ()))
    time.sleep(0.2)
    start = time.monotonic()
    child.channel.close()
    assert child.end() == (0, "")
    assert time.monotonic() - start < 1


def test_it_ignores_ctrl_c_and_ends_at_sigterm(child):
    child.process.send_signal(signal.SIGINT)
    assert child.do(stages.echo, 1) == Done(1)
    child.process.send_signal(signal.SIGTERM)
    assert child.end() == (-signal.SIGTERM, "")


def test_it_shows_its_stacks_when_asked_even_while_it_keeps_the_lock(child):
    child.channel.send(Task(task(stages.keep_the_lock), ()))
    time.sleep(0.3)
    child.process.send_signal(signal.SIGUSR1)
    time.sleep(0.3)
    child.process.kill()
    code, output = child.end()
    assert code == -signal.SIGKILL
    assert "in keep_the_lock" in output


def test_it_imports_nothing_heavy_by_itself():
    code = "import sys, io_pipeline.worker; print(*sys.modules)"
    command = [sys.executable, "-c", code]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert not {"numpy", "torch", "cv2", "av", "asyncio", "daemon"} & set(output.split())


def test_one_that_another_process_started_does_not_run():
    """The creator of the socket is not its parent: the supervisor died before it could look."""
    ours, theirs = socket.socketpair()
    code = (
        "import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-m',"
        " 'io_pipeline.worker', sys.argv[1], 'test'], pass_fds=[int(sys.argv[1])]).returncode)"
    )
    command = [sys.executable, "-c", code, str(theirs.fileno())]
    assert subprocess.run(command, pass_fds=[theirs.fileno()], check=False).returncode == 1
    ours.close()
    theirs.close()


def test_the_kernel_kills_it_with_its_parent():
    """Even when it keeps the lock, and another holder keeps the socket open."""
    code = """if True:
        import os, sys, time
        from tests.io_pipeline.test_worker import Child
        from tests.faults import stages
        child = Child(stages.Calls())
        child.answer()
        child.channel.send(stages.task(stages.keep_the_lock))
        if not os.fork():
            os.close(1), os.close(2)
            time.sleep(3)
            os._exit(0)
        print(child.process.pid, flush=True)
        os._exit(0)
    """
    command = [sys.executable, "-c", code]
    child = int(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    deadline = time.monotonic() + 1
    while os.path.exists(f"/proc/{child}/exe") and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not os.path.exists(f"/proc/{child}/exe")
