"""What is said of a lost connection: the reason, in one line."""

import logging

import pytest

from safelight.run_logs import OBSERVERS, Reason


@pytest.mark.parametrize("name", OBSERVERS)
def test_a_lost_connection_is_one_line_with_its_reason(name: str, caplog: pytest.LogCaptureFixture):
    logger, mended = logging.getLogger(name), Reason()
    logger.addFilter(mended)
    logger.addHandler(caplog.handler)
    try:
        with caplog.at_level(logging.WARNING, name):
            error = BrokenPipeError("the pipe\nbroke")
            logger.warning("the %s websocket failed", "observer", exc_info=error)
    finally:
        logger.removeFilter(mended)
        logger.removeHandler(caplog.handler)
    (record, *_) = caplog.records
    assert record.exc_info is None
    message = record.getMessage()
    assert message.startswith("the observer websocket failed Reason: the pipe")
    assert "\n" not in message
