"""Items come in order, one step ahead of who uses them; errors and closing reach the right side."""

import threading
import time
from collections.abc import Generator

import pytest

from gensync_core.media.read_ahead import map_ahead, read_ahead


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


def test_results_come_in_the_order_of_their_items_whichever_is_done_first() -> None:
    def slow_if_even(number: int) -> tuple[int, int]:
        time.sleep(0.004 * (number % 2 == 0))
        return number, threading.get_ident()

    results = list(map_ahead(slow_if_even, range(40)))
    assert [number for number, _ in results] == list(range(40))
    assert len({thread for _, thread in results} - {threading.get_ident()}) == 2
    assert list(map_ahead(slow_if_even, [])) == []


def test_an_error_of_the_function_or_of_an_item_is_raised_in_its_place() -> None:
    closed = threading.Event()
    ahead = map_ahead(lambda number: 1 / (7 - number), range(100))
    assert [next(ahead) for _ in range(7)] == [1 / (7 - number) for number in range(7)]
    with pytest.raises(ZeroDivisionError):
        next(ahead)
    with pytest.raises(ValueError, match="number 3"):
        list(map_ahead(str, counted([], closed, fails_at=3)))


def test_who_stops_early_leaves_no_thread_and_few_items_taken() -> None:
    made: list[int] = []
    ahead = map_ahead(str, counted(made, threading.Event()), count=3)
    assert next(ahead) == "0"
    ahead.close()
    assert len(made) == 4
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("map_ahead")]
