"""Models made to harm: each is refused with a code, at once, and nothing of it runs."""

import io
import json
import os
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from safelight.errors import ForbiddenPathError, InvalidMediaError, UnsafePickleError
from safelight.settings import reload_settings
from safelight.weights.add_ons import find_add_on
from safelight.weights.checkpoints import find_checkpoint
from safelight.weights.places import STARTER
from safelight.weights.safety import check_weights


@pytest.fixture
def models(volume: Path) -> Path:
    reload_settings()
    folder = volume / "models"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def model(models: Path) -> Path:
    return Path(shutil.copytree(STARTER, models / "m"))


def archive(folder: Path, *entries: bytes) -> Path:
    path = folder / "x.ckpt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        for number, content in enumerate(entries):
            opened.writestr(f"x/{number}/data.pkl", content)
    return path


def test_a_shipped_model_is_as_its_facts_list_it(model: Path):
    assert find_checkpoint("m").native_width == 64
    (model / "NOTICE").write_text("other")
    with pytest.raises(InvalidMediaError, match="NOTICE"):
        find_checkpoint("m")


@pytest.mark.parametrize("part", ["unet", "unet/diffusion_pytorch_model.safetensors"])
def test_a_part_that_is_a_link_out_is_refused(model: Path, tmp_path: Path, part: str):
    shutil.move(model / part, tmp_path / "part")
    (model / part).symlink_to(tmp_path / "part")
    with pytest.raises(ForbiddenPathError):
        find_checkpoint("m")


def test_a_linked_folder_inside_is_looked_into(model: Path, models: Path):
    (model / "safelight.json").unlink()
    shutil.move(model / "vae", models / "elsewhere")
    (models / "elsewhere" / "x.bin").write_bytes(pickle.dumps(os.getcwd))
    (model / "vae").symlink_to(models / "elsewhere")
    with pytest.raises((UnsafePickleError, InvalidMediaError)):
        find_checkpoint("m")


def test_links_in_circles_end(model: Path):
    (model / "again").symlink_to(model)
    find_checkpoint("m")
    (model / "round").symlink_to(model / "round")
    with pytest.raises(ForbiddenPathError):
        find_checkpoint("m")


def test_an_add_on_with_a_link_out_is_refused(models: Path, tmp_path: Path):
    (models / "controlnet" / "c").mkdir(parents=True)
    (tmp_path / "out").mkdir()
    (models / "controlnet" / "c" / "sub").symlink_to(tmp_path / "out")
    with pytest.raises(ForbiddenPathError):
        find_add_on("controlnet", "c")


@pytest.mark.parametrize(
    ("names", "error"),
    [
        (["../../out.safetensors"], ForbiddenPathError),
        (["/tmp/out.safetensors"], ForbiddenPathError),
        (["sub/out.safetensors"], ForbiddenPathError),
        ([5], ForbiddenPathError),
        (["part.dat"], InvalidMediaError),
        ([[]], InvalidMediaError),
    ],
)
@pytest.mark.parametrize("part", ["text_encoder", "unet"])
def test_an_index_that_leads_elsewhere_is_refused(
    model: Path, part: str, names: list[object], error: type[Exception]
):
    listed = {"weight_map": dict(enumerate(names))}
    (model / part / "model.safetensors.index.json").write_text(json.dumps(listed))
    with pytest.raises(error):
        find_checkpoint("m")


def test_a_pipe_is_refused_and_not_opened(model: Path, models: Path):
    os.mkfifo(models / "p.ckpt")
    with pytest.raises(InvalidMediaError):
        find_checkpoint("p")
    os.mkfifo(model / "unet" / "more.bin")
    with pytest.raises(InvalidMediaError):
        find_checkpoint("m")


@pytest.mark.parametrize("name", ["model_index.json", "safelight.json", "unet/config.json"])
@pytest.mark.parametrize(
    "content", ["null", "[]", "5", "not", "[" * 100_000, '"x"', b"\xff\xfe", "1" * 5000]
)
def test_odd_json_is_refused(model: Path, name: str, content: str | bytes):
    (model / "safelight.json").unlink()
    (model / name).write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(InvalidMediaError):
        find_checkpoint("m")


@pytest.mark.parametrize(
    "facts",
    [
        {"base_model": ["sd"]},
        {"base_model": {"name": "sd"}},
        {"native_width": 0, "native_height": 0},
        {"native_width": -8},
        {"native_height": 10**9},
        {"native_width": "wide"},
        {"recommended_steps": -1},
        {"recommended_guidance_scale": float("nan")},
        {"subjects": [1]},
        {"subjects": 7},
        {"subjects": [{"name": "x"}]},
    ],
)
def test_facts_out_of_bounds_are_refused(model: Path, facts: dict[str, object]):
    (model / "safelight.json").write_text(json.dumps(facts))
    with pytest.raises(InvalidMediaError):
        find_checkpoint("m")


@pytest.mark.parametrize("levels", [5, "x", [4] * 3000])
def test_levels_out_of_bounds_are_refused(model: Path, levels: object):
    (model / "safelight.json").unlink()
    (model / "vae" / "config.json").write_text(json.dumps({"block_out_channels": levels}))
    with pytest.raises(InvalidMediaError):
        find_checkpoint("m")


def bomb(folder: Path) -> Path:
    return archive(folder, b"N0" * 50_000_000)


def many_small(folder: Path) -> Path:
    return archive(folder, *[b"\x80\x02" + b"N0" * 500_000 + b"N."] * 20)


def many_opcodes(folder: Path) -> Path:
    return archive(folder, b"\x80\x02" + b"N0" * 2_000_000 + b"N.")


def encrypted(folder: Path) -> Path:
    path = archive(folder, pickle.dumps({}))
    content = bytearray(path.read_bytes())
    content[6] |= 1  # in the head of the entry, then in the list
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    return path


def unknown_method(folder: Path) -> Path:
    path = archive(folder, pickle.dumps({}))
    content = bytearray(path.read_bytes())
    content[8] = content[content.index(b"PK\x01\x02") + 10] = 97
    path.write_bytes(content)
    return path


def long_string(folder: Path) -> Path:
    path = folder / "x.pt"
    path.write_bytes(b"\x80\x04\x8d" + struct.pack("<Q", 2**48))
    return path


def long_string_inside(folder: Path) -> Path:
    return archive(folder, b"\x80\x04\x8e" + struct.pack("<Q", 2**52))


def shape_bomb(folder: Path) -> Path:
    path = folder / "x.safetensors"
    shape = [10**4000] * 1000
    header = json.dumps({"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, 4]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    return path


def long_header(folder: Path) -> Path:
    path = folder / "x.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 90 * 2**20) + b"{")
        file.truncate(100 * 2**20)
    return path


@pytest.mark.parametrize(
    "made",
    [
        bomb,
        many_small,
        many_opcodes,
        encrypted,
        unknown_method,
        long_string,
        long_string_inside,
        shape_bomb,
        long_header,
    ],
)
def test_bombs_are_refused(tmp_path: Path, made: Callable[[Path], Path]):
    with pytest.raises((InvalidMediaError, UnsafePickleError)) as refused:
        check_weights(made(tmp_path))
    assert refused.value.code == "INVALID_FIELD_VALUE"


def test_flips_and_cuts_end_well_or_with_a_code(tmp_path: Path):
    import random

    chance = random.Random(20)
    plain = io.BytesIO()
    with zipfile.ZipFile(plain, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("x/data.pkl", pickle.dumps({"a": 1, "b": [2.5, "x" * 50]}, protocol=2))
    header = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    originals = [plain.getvalue(), struct.pack("<Q", len(header)) + header + bytes(8)]
    outcomes: set[str] = set()
    for number in range(300):
        content = bytearray(originals[number % 2])
        for _ in range(chance.randint(1, 6)):
            content[chance.randrange(len(content))] = chance.randrange(256)
        path = tmp_path / f"{number}{('.ckpt', '.safetensors')[number % 2]}"
        path.write_bytes(content[: chance.choice([len(content), chance.randrange(len(content))])])
        try:
            check_weights(path)
            outcomes.add("passed")
        except (InvalidMediaError, UnsafePickleError) as error:
            outcomes.add(error.code)
    assert outcomes == {"passed", "INVALID_FIELD_VALUE"}


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("unet/config.json", {"layers_per_block": 10**6}),
        ("unet/config.json", {"transformer_layers_per_block": [1, [2, 5000]]}),
        ("unet/config.json", {"cross_attention_dim": 10**9}),
        ("unet/config.json", {"block_out_channels": [8] * 200_000}),
        ("vae/config.json", {"layers_per_block": 201}),
        ("text_encoder/config.json", {"max_position_embeddings": 10**10}),
        ("text_encoder/config.json", {"text_config": {"num_hidden_layers": 10**5}}),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": 10**9}),
    ],
)
def test_a_config_that_would_have_a_library_build_without_end_is_refused(
    model: Path, file: str, change: dict[str, object]
):
    (model / "safelight.json").unlink()
    config = json.loads((model / file).read_text())
    (model / file).write_text(json.dumps(config | change))
    name = list(change)[-1]
    with pytest.raises(InvalidMediaError, match="expected at most") as refused:
        find_checkpoint("m")
    assert file in str(refused.value)
    assert name in str(refused.value) or "num_hidden_layers" in str(refused.value)


def test_large_numbers_that_real_configs_have_are_taken(model: Path):
    (model / "safelight.json").unlink()
    file = model / "text_encoder" / "config.json"
    real = {"rope_theta": 10**9, "vocab_size": 256_000, "bos_token_id": 128_000, "on": True}
    file.write_text(json.dumps(json.loads(file.read_text()) | real))
    assert find_checkpoint("m").name == "m"
