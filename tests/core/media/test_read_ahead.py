"""Items come in order, one step ahead of who uses them; errors and closing reach the right side."""

import threading
from collections.abc import Generator

import pytest

from gensync_core.media.read_ahead import read_ahead


def counted(made: list[int], closed: threading.Event, most: int = 100, fails_at: int = -1) -> Generator[int, None, None]:
    try:
        for number in range(most):
            if number == fails_at:
                raise ValueError(f"number {number}")
            made.append(number)
            yield number
    finally:
        closed.set()


def test_all_items_come_in_order() -> None:
    made: list[int] = []
    assert list(read_ahead(counted(made, threading.Event()))) == list(range(100)) == made
    assert list(read_ahead(counted([], threading.Event(), most=2))) == [0, 1]
    assert list(read_ahead(counted([], threading.Event(), most=0))) == []


def test_work_is_done_ahead_in_another_thread_but_not_far() -> None:
    threads: list[int] = []

    def working() -> Generator[int, None, None]:
        for number in range(100):
            threads.append(threading.get_ident())
            yield number

    ahead = read_ahead(working(), count=3)
    next(ahead)
    ahead.close()
    assert 1 <= len(threads) <= 4
    assert threading.get_ident() not in threads


def test_an_error_comes_where_its_item_would_have_come() -> None:
    closed = threading.Event()
    ahead = read_ahead(counted([], closed, fails_at=7))
    assert [next(ahead) for _ in range(7)] == list(range(7))
    with pytest.raises(ValueError, match="number 7"):
        next(ahead)
    assert closed.is_set()


def test_who_stops_early_closes_the_source_and_its_thread() -> None:
    closed = threading.Event()
    ahead = read_ahead(counted([], closed))
    assert next(ahead) == 0
    ahead.close()
    assert closed.is_set()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("read_ahead")]
