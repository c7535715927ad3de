"""Work that follows the main thread: in order, in a thread of its own, never far behind."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from types import TracebackType
from typing import ParamSpec, Self

P = ParamSpec("P")


class Behind:
    """Makes calls one after the other while the caller goes on; a context manager.

    The block ends when all calls are made, or, where it raises, without those that wait. After a
    call that raised, none is made.
    """

    def __init__(self, most: int) -> None:
        """Start the thread.

        Args:
            most: how many calls may wait or run before `call` waits too, at least 1.
        """
        self._most = most
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="behind")
        self._calls: deque[Future[None]] = deque()
        self._failed = False

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Wait for the calls; raises what one of them raised, unless the block failed itself."""
        try:
            if kind is None:
                self.settle()
        finally:
            self._thread.shutdown(cancel_futures=True)

    def call(self, fn: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """Have `fn` called with the context variables of now.

        Raises:
            Exception: what an earlier call raised.
        """
        while self._calls and (len(self._calls) >= self._most or self._calls[0].done()):
            self._calls.popleft().result()
        made = partial(copy_context().run, fn, *args, **kwargs)
        self._calls.append(self._thread.submit(self._make, made))

    def settle(self) -> None:
        """Wait until all calls are made.

        Raises:
            Exception: what one of them raised.
        """
        while self._calls:
            self._calls.popleft().result()

    def _make(self, made: Callable[[], object]) -> None:
        if self._failed:
            return
        self._failed = True
        made()
        self._failed = False
