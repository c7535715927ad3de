"""The commands of the README do what it says."""

import os
import re
import shlex
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from safelight.media.images import decode_image
from tests.documents import commands, small_examples
from tests.prefect_database import put_database
from tests.served import CHECKOUT

PRODUCTS = Path(__file__).parent / "data" / "products.xlsx"


def main_job(words: Sequence[str], volume: Path) -> Path:
    """Run it with nothing configured; the folder of its results, each of which it named."""
    environment = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    done = subprocess.run(
        words,
        cwd=CHECKOUT,
        env={**environment, "VOLUME_ROOT": str(volume)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    results = volume / "outputs" / "main-job"
    assert sorted(path.suffix for path in results.iterdir()) == [".mp4"] * 2 + [".png"] * 4
    for path in results.iterdir():
        assert str(path) in done.stdout
    return results


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, database: Path) -> Path:
    """What the last command of `make run` makes of small examples."""
    folder = tmp_path_factory.mktemp("main-job")
    small_examples(folder / "examples")
    put_database(database, folder)
    said = subprocess.run(
        ["make", "--no-print-directory", "-n", "run"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert said[0] == "scripts/setup.sh run"
    return main_job([*shlex.split(said[-1]), str(folder / "examples")], folder)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_main_job_of_the_readme(results: Path):
    assert commands("README.md") == ["make run", "make test"]
    for path in results.iterdir():
        assert path.stat().st_size > 1000


@pytest.mark.slow
def test_the_first_picture_is_large_clean_and_red(results: Path):
    (file,) = results.glob("portrait-preset-*.png")
    picture = decode_image(file.read_bytes())
    assert picture.shape == (768, 512, 3)  # 2:3, as the preset says
    corners = np.concatenate([picture[:24, :24], picture[-24:, -24:]]).astype(int)
    assert corners.min() > 225  # white, no halo
    red, green, blue = picture[328:440, 200:312].reshape(-1, 3).mean(0)
    assert red > 180
    assert max(green, blue) < 100


@pytest.mark.soak
@pytest.mark.slow
def test_a_spreadsheet_of_products_becomes_named_pictures_in_a_zip(tmp_path: Path, database: Path):
    """As the README says, in a fresh folder, on 20 products that LibreOffice saved."""
    text = (CHECKOUT / "README.md").read_text()
    said = re.findall(r"`([^`]*(?:batch products|--width)[^`]*)`", text)
    assert len(said) == 2  # the command, and what the small model needs
    command, *words = shlex.split(" ".join(said))
    (tmp_path / "products.xlsx").write_bytes(PRODUCTS.read_bytes())
    put_database(database, tmp_path / "data")
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PREFECT_API_URL", "VOLUME_ROOT")
    }
    done = subprocess.run(
        [str(Path(sys.executable).parent / Path(command).name), *words],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    with zipfile.ZipFile(tmp_path / "products.zip") as archive:
        names = archive.namelist()
        assert len(names) == 20
        assert {"Red mug.png", "Brown bear toy.png"} < set(names)
        for name in names:
            assert decode_image(archive.read(name)).shape == (64, 64, 3)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_make_run(tmp_path: Path):
    """On the examples themselves, from nothing."""
    for path in main_job(["make", "run"], tmp_path).iterdir():
        assert path.stat().st_size > 10_000
