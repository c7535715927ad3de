"""What is worth another attempt."""

from typing import Any

from prefect import Task
from prefect.client.schemas.objects import State, TaskRun

from safelight.errors import PipelineError


def worth_retrying(task: Task[Any, Any], run: TaskRun, state: State[Any]) -> bool:
    """True for errors that call themselves transient; bad input never is."""
    del task, run
    error = state.result(raise_on_failure=False)
    return isinstance(error, PipelineError) and error.transient
