"""The journal's lock: it ends with its process, keeps writers apart, and repairs what a dead one left."""

import json
import multiprocessing
import os
import signal

import pytest

from experiments.tuning.journal import JournalLock, journal

spawn = multiprocessing.get_context("spawn")


def hold(path, held):
    JournalLock(path).acquire()
    held.set()
    signal.pause()


def append(path, writer):
    backend = journal(path)
    for number in range(100):
        backend.append_logs([{"writer": writer, "number": number}])


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal.log"


def test_a_killed_process_does_not_keep_the_lock(path):
    journal(path)
    held = spawn.Event()
    process = spawn.Process(target=hold, args=(path, held))
    process.start()
    assert held.wait(60)
    waiting = spawn.Process(target=append, args=(path, 0))
    waiting.start()
    waiting.join(2)
    assert waiting.is_alive()  # a living process keeps it
    os.kill(process.pid, signal.SIGKILL)
    waiting.join(10)  # Optuna's own lock would be waited for half a minute
    assert waiting.exitcode == 0
    assert len(list(journal(path).read_logs(0))) == 100


def test_two_writers_lose_nothing(path):
    writers = [spawn.Process(target=append, args=(path, number)) for number in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    logs = list(journal(path).read_logs(0))
    for number in range(2):
        assert [log["number"] for log in logs if log["writer"] == number] == list(range(100))


@pytest.mark.parametrize("whole", [0, 1, 3])
@pytest.mark.parametrize("half", ['{"half', '{"half":"' + 200_000 * "x"])
def test_half_a_line_of_a_dead_writer_is_dropped(path, whole, half):
    lines = [json.dumps({"number": number}) + "\n" for number in range(whole)]
    path.write_text("".join(lines) + half)
    journal(path).append_logs([{"number": "next"}])
    assert [log["number"] for log in journal(path).read_logs(0)] == [*range(whole), "next"]


def test_whole_lines_stay(path):
    path.write_text('{"number": 0}\n')
    journal(path).append_logs([{"number": 1}])
    assert path.read_text() == '{"number": 0}\n{"number":1}\n'
