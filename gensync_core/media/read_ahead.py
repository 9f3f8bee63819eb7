"""Work on frames one step ahead of who uses them: decoding, face mesh and optical flow run outside of Python's lock."""

from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, TypeVar

_Item = TypeVar("_Item")
_AHEAD: Final = 4
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
