"""A models folder with a tiny random Stable Diffusion, an IP-Adapter and a ControlNet for it."""

from pathlib import Path

from examples.untrained import build_untrained
from tests.engines.diffusers.test_draw import make_controlnet, make_ip_adapter


def build_tiny_models(folder: Path) -> Path:
    """The model is `tiny`, the ControlNet `edges`, the IP-Adapter `default`."""
    build_untrained(folder / "tiny")
    make_controlnet(folder)
    make_ip_adapter(folder)
    (folder / "ip_adapter" / "face").rename(folder / "ip_adapter" / "default")
    return folder
