"""Workflows of ComfyUI as flows: `flows.workflow.workflow_NAME` is made of the files of NAME.

No module names them: whoever asks this one for `workflow_NAME` gets the flow as the files of the
volume are now.
"""

from flows.running.checking import RecordedFlow
from flows.running.graphs import graph_flow
from safelight.errors import MissingFileError
from safelight.workflows.files import workflow_of


def __getattr__(name: str) -> RecordedFlow[...]:
    """The flow of a workflow.

    Raises:
        AttributeError: there is none of this name.
        PipelineError: its files are not as they should be.
    """
    workflow = workflow_of(name)
    if workflow is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return graph_flow(workflow)
    except MissingFileError as error:
        raise AttributeError(str(error)) from error
