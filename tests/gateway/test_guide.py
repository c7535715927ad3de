"""The guide names every route, and shows an error as it is."""

import json
import re

from safelight.gateway.app import create_api
from safelight.gateway.problems import Problem
from tests.documents import blocks
from tests.served import CHECKOUT

GUIDE = "docs/gateway.md"


def test_the_guide_names_every_route():
    text = (CHECKOUT / GUIDE).read_text()
    for path, methods in create_api().openapi()["paths"].items():
        short = re.sub(r"\{\w+\}", "ID", path).replace("/artifacts/ID", "/artifacts")
        for method in methods:
            assert f"`{method.upper()} {short}`" in text, (method, path)
    (shown,) = blocks(GUIDE, "json")
    Problem.model_validate(json.loads(shown))
