"""Work on frames one step ahead of who uses them: decoding, face mesh and optical flow run outside of Python's lock."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_AHEAD: Final = 4
_WORKERS: Final = 2
_END: Final = object()


def read_ahead(items: Generator[_Item, Any, Any], count: int = _AHEAD) -> Generator[_Item, None, None]:
    """The same items in the same order, of which a thread makes the next `count` while the caller works on this one.

    An error of `items` is raised where its item would have come. Closing closes `items`, once its last step has ended.
    """
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="read_ahead") as worker:
        pending: deque[Future[Any]] = deque(worker.submit(next, items, _END) for _ in range(count))
        try:
            while (item := pending.popleft().result()) is not _END:
                pending.append(worker.submit(next, items, _END))
                yield item
        finally:
            for future in pending:
                future.cancel()
            worker.shutdown()
            items.close()


def map_ahead(
    function: Callable[[_Item], _Result], items: Iterable[_Item], count: int = _AHEAD
) -> Generator[_Result, None, None]:
    """`function` of each item, in their order; two threads work on the next `count` while the caller works on this one.

    For work that needs nothing of the items before. Items are taken in the caller's thread. An error is raised where its
    result would have come.
    """
    with ThreadPoolExecutor(max_workers=_WORKERS, thread_name_prefix="map_ahead") as workers:
        pending: deque[Future[_Result]] = deque()
        try:
            for item in items:
                pending.append(workers.submit(function, item))
                if len(pending) > count:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
