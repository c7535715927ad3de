"""The guide names every route, and shows an error as it is."""

import json
import re

from safelight.gateway.app import create_api
from safelight.gateway.problems import Problem
from tests.documents import blocks
from tests.served import CHECKOUT

GUIDE = "docs/gateway.md"
GUIDES = (GUIDE, "docs/earlier-systems.md", "docs/uploads.md", "docs/hooks.md")


def test_the_guide_names_every_route():
    text = "".join((CHECKOUT / guide).read_text() for guide in GUIDES)
    for path, methods in create_api().openapi()["paths"].items():
        short = re.sub(r"\{\w+\}", "ID", path).replace("/artifacts/ID", "/artifacts/SHA256")
        for method in methods:
            assert f"`{method.upper()} {short}`" in text, (method, path)
    (shown,) = blocks(GUIDE, "json")
    Problem.model_validate(json.loads(shown))
