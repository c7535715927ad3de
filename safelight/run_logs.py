"""The log of a run: one record says why it failed, and no name in it forges another line."""

import logging

from safelight.errors import PipelineError, one_line

RUNS = ("prefect.flow_runs", "prefect.task_runs")
"""Loggers of Prefect whose records stand on the page of a run."""
ENGINE = "prefect.engine"
"""What Prefect says of a run that ended with an exception, on the console alone."""
OBSERVERS = ("prefect.FlowRunSuspendingObserver", "prefect.FlowRunCancellingObserver")
"""What listens to the server's events, and asks instead while the connection is lost."""
FINISHED = "Finished in state "
_UNSUCCESSFUL = ("Failed", "Cancelled", "TimedOut", "Crashed")


class OneRecord(logging.Filter):
    """Leaves the record of a failure to the flow that failed.

    Prefect says it again, at ERROR, for each task and with a traceback. An error that has a code
    needs none; that of any other is in its report. A run that was cancelled is no error.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Mend the record in place; False when its level is now under the logger's."""
        failure = record.exc_info[1] if record.exc_info else None
        if isinstance(failure, PipelineError):
            record.exc_info = None
            self._lower(record)
        message = record.getMessage()
        if message.startswith(FINISHED):
            state = message.removeprefix(FINISHED).partition("(")[0]
            if state in _UNSUCCESSFUL:
                self._lower(record)
                message = FINISHED + state
        if not message.isprintable():
            lines = [one_line(line) for line in message.split("\n")]
            message = "\n    ".join(lines)  # further lines are seen to be part of this record
        record.msg, record.args = message, ()
        return record.levelno >= logging.getLogger(record.name).getEffectiveLevel()

    def _lower(self, record: logging.LogRecord) -> None:
        record.levelno = min(record.levelno, logging.INFO)
        record.levelname = logging.getLevelName(record.levelno)


class Reason(logging.Filter):
    """Tells why a connection was lost in the line itself, without a traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Mend the record in place."""
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            record.msg, record.args = f"{record.getMessage()} Reason: {one_line(str(error))}", ()
            record.exc_info = None
        return True


def say_it_once() -> None:
    """Install the filters, once a process."""
    for names, kind in (((*RUNS, ENGINE), OneRecord), (OBSERVERS, Reason)):
        for name in names:
            logger = logging.getLogger(name)
            if not any(isinstance(known, kind) for known in logger.filters):
                logger.addFilter(kind())
