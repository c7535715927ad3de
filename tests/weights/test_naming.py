"""Names of models: no two alike, none that depends on the order of a scan."""

from pathlib import PurePosixPath

from hypothesis import given, settings
from hypothesis import strategies as st

from safelight.weights.naming import Placed, ends_with, names_for, near, stem_of

part = st.sampled_from(["a", "b", "c"])
paths = st.builds(
    lambda folders, stem, end: "/m/" + "/".join([*folders, stem + end]),
    st.lists(part, max_size=3),
    st.sampled_from(["x", "y"]),
    st.sampled_from([".ckpt", ".safetensors"]),
)


def placed(path: str) -> tuple[Placed, str]:
    return Placed(path, "checkpoint", None), stem_of(path, folder=False)


@settings(max_examples=60)
@given(st.sets(paths, min_size=1), st.randoms())
def test_each_model_has_a_name_of_its_own_whatever_the_order(found: set[str], dice):
    names = names_for(map(placed, sorted(found)))
    shuffled = sorted(found)
    dice.shuffle(shuffled)
    assert names_for(map(placed, shuffled)) == names
    assert len(set(names.values())) == len(found)
    for path, name in names.items():
        assert ends_with(path, name) or name == PurePosixPath(path).stem


@settings(max_examples=60)
@given(st.sets(paths, min_size=1))
def test_a_name_that_was_given_is_nobody_elses(found: set[str]):
    first, *_ = sorted(found)
    models = [
        (Placed(path, "checkpoint", "x" if path == first else None), stem_of(path, folder=False))
        for path in found
    ]
    names = names_for(models)
    assert names[first] == "x"
    assert len(set(names.values())) == len(found)


def test_the_highest_keeps_the_stem_and_the_others_say_where_they_lie():
    names = names_for(
        map(placed, ["/m/x.ckpt", "/m/a/x.ckpt", "/m/b/x.ckpt", "/m/b/x.safetensors", "/m/a/y.pt"])
    )
    assert names == {
        "/m/x.ckpt": "x",
        "/m/a/x.ckpt": "a/x",
        "/m/b/x.ckpt": "b/x.ckpt",
        "/m/b/x.safetensors": "b/x.safetensors",
        "/m/a/y.pt": "y",
    }


def test_kinds_have_names_of_their_own():
    names = names_for(
        [(Placed("/m/x.pt", "lora", None), "x"), (Placed("/m/a/x.pt", "vae", None), "x")]
    )
    assert set(names.values()) == {"x"}


def test_near_names():
    known = ["dreamshaper", "a/film", "b/film", "realistic-vision"]
    assert near("dreamshapper", known) == ["dreamshaper"]
    assert near("film", known)[:2] == ["a/film", "b/film"]
    assert near("vision", known) == ["realistic-vision"]
    assert near("", known) == []
