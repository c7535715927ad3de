"""Work that goes ahead of the main thread: several calls at once, their results in order."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


@contextmanager
def several_at_once(most: int) -> "Generator[Ahead]":
    """Makes up to `most` calls at once, each in a thread of its own.

    The block ends when no call runs any more; where it raises, those that wait are not made.

    Args:
        most: how many calls run at once; with 1 each is made by the caller, at once.
    """
    if most == 1:
        yield Ahead(1, None)
        return
    threads = ThreadPoolExecutor(most, thread_name_prefix="ahead")
    try:
        yield Ahead(most, threads)
    finally:
        threads.shutdown(cancel_futures=True)


@dataclass(frozen=True)
class Ahead:
    """What begins the calls of `several_at_once` and takes their results."""

    most: int
    """How many calls run at once."""
    threads: ThreadPoolExecutor | None
    """None where the caller makes them."""

    def begin(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Callable[[], T]:
        """Have `fn` called with the context variables of now.

        Returns:
            What waits for the call and gives its result, or raises what it raised.
        """
        if self.threads is None:
            made = fn(*args, **kwargs)
            return lambda: made
        context = copy_context()
        begun: Future[T] = self.threads.submit(lambda: context.run(fn, *args, **kwargs))
        return lambda: begun.result()

    def in_order(self, pending: Iterable[Callable[[], T]]) -> Generator[T]:
        """The results of calls, each taken once `most` are begun or there are no more."""
        begun = deque[Callable[[], T]]()
        for call in pending:
            begun.append(call)
            if len(begun) >= self.most:
                yield begun.popleft()()
        while begun:
            yield begun.popleft()()
