"""Names that all systems take, that nobody else has, and that say what they are to say."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safelight.digests import sha256_of
from safelight.errors import ContractMismatchError, InvalidFieldValueError
from safelight.exports.parts import LONGEST_PATH, fitted, part, same
from safelight.exports.placing import Placing, named
from safelight.exports.template import FIELDS, parse
from safelight.store.places import DiskPlace
from tests.exports.hostile import forms, prompts, refusals
from tests.exports.making import MOMENT, result

FACTS = {
    "prompt": "a red heart, large",
    "seed": 7,
    "number": 3,
    "width": 512,
    "batch": "spring",
    "date": MOMENT,
    "time": MOMENT,
    "folder": "mugs/red",
    "source": "photo",
    "steps": 20,
    "choices": "red-cat",
    "choices.colour": "red",
}


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{prompt}", "a red heart, large"),
        ("{prompt:5}-{seed}", "a red-7"),
        ("{prompt:40}-{seed}-{number:04}", "a red heart, large-7-0003"),
        ("{batch}/{date}/{prompt:5}-{number:02}", "spring/2026-01-31/a red-03"),
        ("{date:%Y-%m}/{time}", "2026-01/235958"),
        ("{folder}/{source}", "mugs/red/photo"),
        ("{source}-{folder}", "photo-mugs-red"),
        ("{lora}/{seed}", "7"),
        ("{lora}-{seed}", "7"),
        ("{seed}_{lora}_{number}", "7_3"),
        ("{lora}", "otherwise"),
        ("{{{seed}}}", "{7}"),
        ("steps {steps}", "steps 20"),
        ("{choices.colour} {choices}", "red red-cat"),
        ("fixed", "fixed"),
    ],
)
def test_a_template_is_filled(template: str, expected: str):
    assert "/".join(parse(template, "names", ["steps"]).fill(FACTS, "otherwise")) == expected


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{prmpt}", r"names: there is no field \{prmpt\}; did you mean \{prompt\}\?"),
        ("{nummer:04}", r"did you mean \{number\}\?"),
        ("{step}", r"did you mean \{steps\}\?"),
        ("{prompt[0]}", "there is no field"),
        ("{seed.__class__}", "there is no field"),
        ("{}", "there is no field"),
        ("{0}", "there is no field"),
        ("{choices.}", "there is no field"),
    ],
)
def test_an_unknown_field_is_refused_with_the_one_that_was_meant(template: str, said: str):
    with pytest.raises(ContractMismatchError, match=said) as refused:
        parse(template, "names", ["steps"])
    assert all(field in refused.value.remedy for field in FIELDS)


@pytest.mark.parametrize(
    "template",
    [
        "",
        "x" * 401,
        "{prompt",
        "prompt}",
        "{prompt!r}",
        "{prompt:{seed}}",
        "{prompt:0}",
        "{prompt:1000}",
        "{prompt:>40}",
        "{seed:x}",
        "{seed:099}",
        "{date:%c}",
        "{date:%Y/%m}",
        "/{prompt}",
        "{prompt}/",
        "a//{prompt}",
        "../{prompt}",
        "./{prompt}",
        "C:\\{prompt}",
        "{prompt}?",
        "a\0{prompt}",
        "{prompt}.png",
        "{prompt}.JPG",
        "/".join(["{seed}"] * 9),
    ],
)
def test_what_is_no_template_is_refused(template: str):
    with pytest.raises(InvalidFieldValueError, match="names") as refused:
        parse(template, "names")
    assert "names" in refused.value.remedy or "leave out" in refused.value.remedy


@given(st.text(max_size=60))
def test_any_text_is_a_template_or_refused_with_a_code(text: str):
    try:
        template = parse(text, "names")
    except (ContractMismatchError, InvalidFieldValueError):
        return
    found = template.fill(FACTS, "otherwise")
    assert not [why for each in found for why in refusals(each)], found


@given(st.text(), st.integers(1, 200))
def test_any_text_makes_a_name_or_nothing(text: str, most: int):
    found = part(text, most)
    assert not found or not refusals(found), (found, refusals(found))
    assert part(found, most + 1) == found
    assert len(found.encode()) <= most + 1  # a reserved name gets a mark


@given(st.lists(st.text(min_size=1).filter(lambda text: part(text, 80)), min_size=1, max_size=40))
def test_any_path_fits(texts: list[str]):
    *folders, name = fitted([part(text, 80) for text in texts], ".webp")
    path = "/".join((*folders, f"{name}-2000.webp"))
    assert len(path.encode("utf-16-le")) // 2 <= LONGEST_PATH
    assert not [why for each in (*folders, name) for why in refusals(each) if each != "-"]


def test_letters_keep_their_marks_and_families_stay_together():
    family = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
    assert part(f"ab{family}", 2 + len(family.encode()) - 1) == "ab"
    assert part("\u0928\u093f" * 2, 11) == "\u0928\u093f"


@pytest.mark.usefixtures("volume")
@pytest.mark.parametrize(
    "template",
    ["{prompt}", "{prompt:20}/{number}", "{folder}/{prompt:30}", "{prompt:1}", "x", "{name}"],
)
def test_500_hostile_prompts_make_names_that_all_systems_take_and_tell_apart(template: str):
    texts = prompts()
    assert len(texts) == 500
    results = [
        result(f"{number} {text}", prompt=text, name=text, number=number, folder=text[::-1])
        for number, text in enumerate(texts)
    ]
    placed = named(results, parse(template, "names"))
    seen: set[str] = set()
    for path, _ in placed:
        assert not [why for each in path.parts for why in refusals(each) if each != "-"], path
        assert len(str(path).encode("utf-16-le")) // 2 <= LONGEST_PATH
        assert seen.isdisjoint(forms(str(path))), path
        seen |= forms(str(path))
    spelled: dict[str, str] = {}
    for folder in {str(above) for path, _ in placed for above in path.parents}:
        assert spelled.setdefault(folder.casefold(), folder) == folder


@pytest.mark.usefixtures("volume")
@pytest.mark.parametrize("template", ["{prompt}", "{prompt:1}/x"])
def test_500_hostile_prompts_make_500_files_and_overwrite_none(template: str, tmp_path: Path):
    results = [result(f"{n} {text}", prompt=text) for n, text in enumerate(prompts())]
    root = tmp_path / "out"
    root.mkdir()
    mine = root / "FISH.png"
    mine.write_bytes(b"mine")
    for _ in range(2):  # the second time everything is there
        placing = Placing(DiskPlace(root, private=False), parse(template, "names"))
        places = [placing.put(each) for each in results]
        assert len(set(places)) == 500
        for place, each in zip(places, results, strict=True):
            assert sha256_of(Path(place)) == each.ref.sha256
        assert len([each for each in root.rglob("*") if each.is_file()]) == 501
    assert mine.read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Cat", "cat"),
        ("\u00e9t\u00e9", "e\u0301te\u0301"),
        ("stra\u00dfe", "STRASSE"),
        ("\u0131", "I"),
        ("\ufb01", "FI"),
        ("\u212b", "\u00e5"),
    ],
)
def test_what_one_system_takes_for_one_is_one(one: str, other: str):
    assert same(one) == same(other)
    assert same(one) != same(f"{other}s")


@pytest.mark.usefixtures("volume")
def test_files_and_folders_keep_out_of_each_others_way():
    template = parse("{folder}/{name}", "names")
    found = [
        path
        for path, _ in named(
            [
                result("1", name="a"),
                result("2", name="b", folder="A.PNG"),
                result("3", name="b", folder="mugs"),
                result("4", name="b", folder="MUGS"),
                result("5", name="mugs"),
            ],
            template,
        )
    ]
    assert [str(path) for path in found] == [
        "a.png",
        "A.PNG-2/b.png",
        "mugs/b.png",
        "mugs/b-2.png",
        "mugs.png",
    ]


@pytest.mark.usefixtures("volume")
def test_nothing_that_lies_there_is_overwritten(tmp_path: Path):
    root = tmp_path / "out"
    root.mkdir()
    (root / "CAT.png").write_bytes(b"of somebody")
    (root / "elsewhere").write_bytes(b"kept")
    (root / "dog.png").symlink_to(root / "elsewhere")
    (root / "cow.png").mkdir()
    results = [result(name, name=name) for name in ("cat", "dog", "cow")]
    template = parse("{name}", "names")
    for _ in range(2):
        placing = Placing(DiskPlace(root, private=False), template)
        assert [Path(placing.put(each)).name for each in results] == [
            "cat-2.png",
            "dog-2.png",
            "cow-2.png",
        ]
    assert (root / "CAT.png").read_bytes() == b"of somebody"
    assert (root / "elsewhere").read_bytes() == b"kept"
    assert len(list(root.iterdir())) == 7


@pytest.mark.usefixtures("volume")
def test_a_result_that_failed_before_takes_nobodys_name(tmp_path: Path):
    """The second of two of one name was there first; later each has its own file."""
    first, second = result("first", name="cat"), result("second", name="cat")
    template = parse("{name}", "names")
    assert Path(Placing(DiskPlace(tmp_path, private=False), template).put(second)).name == "cat.png"
    again = Placing(DiskPlace(tmp_path, private=False), template)
    assert Path(again.put(first)).name == "cat-2.png"
    assert Path(again.put(second)).name == "cat.png"
    assert len(list(tmp_path.glob("*.png"))) == 2


@pytest.mark.usefixtures("volume")
def test_equal_results_of_two_requests_are_two_files(tmp_path: Path):
    both = [result("same", name="cat"), result("same", name="cat")]
    for _ in range(2):
        placing = Placing(DiskPlace(tmp_path, private=False), parse("{name}", "names"))
        assert [Path(placing.put(each)).name for each in both] == ["cat.png", "cat-2.png"]


def test_the_check_of_names_finds_bad_ones():
    bad = ("a?", "CON.png", "a.", "e\u0301", "\u202ea", "x" * 256, ".git", "a~1", "com\u00b9.x")
    assert all(map(refusals, bad))
    assert not refusals("Müller 東京 \U0001f468\u200d\U0001f469.png")
