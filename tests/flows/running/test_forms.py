"""A flow's form is made when it is read, and is what Prefect would have made of the function."""

import json
import subprocess
import sys

import pytest
from prefect.utilities.callables import parameter_schema

from flows.generate import generate
from flows.photoreal_portrait_v1 import photoreal_portrait_v1
from flows.running.signature import parameters_model

LOADING = """
import json
from prefect.utilities import callables
made, before = [], callables.generate_parameter_schema
def counted(signature, docstrings):
    made.append(len(signature.parameters))
    return before(signature, docstrings)
callables.generate_parameter_schema = counted
from flows.generate import generate
at_loading = list(made)
print(json.dumps([at_loading, len(generate.parameters.properties)]))
"""


@pytest.mark.slow
def test_loading_a_flow_makes_no_form_and_reading_it_does():
    ran = subprocess.run([sys.executable, "-c", LOADING], capture_output=True, check=True)
    at_loading, shown = json.loads(ran.stdout)
    assert not any(at_loading), "only forms without a parameter"
    assert shown == len(parameters_model(generate.fn).model_fields)


def test_the_form_is_that_of_the_function_with_its_help():
    for flow in (generate, photoreal_portrait_v1):
        assert flow.parameters == parameter_schema(flow.fn) == parameter_schema(flow)
        assert "1 to 150" in str(flow.parameters.properties.get("steps", "1 to 150"))
        assert flow.parameters is flow.parameters, "it is made once"
        assert flow.with_options(name="other").parameters == flow.parameters
    assert generate.parameters.properties["steps"]["description"] == "Denoising steps. 1 to 150."
