import numpy as np
import pytest
from PIL import features

from safelight.media.sheets import PAPER, contact_sheet, grid, together


def flat(level: int, height: int = 300, width: int = 300) -> np.ndarray:
    """In a colour that text, which is grey, does not have."""
    return np.full((height, width, 3), colour(level), np.uint8)


def colour(level: int) -> tuple[int, int, int]:
    return (level, 0, level)


def areas(sheet: np.ndarray, level: int) -> tuple[int, int, int, int]:
    """Left, top, width and height of what was filled with this level."""
    rows, columns = np.nonzero((sheet == colour(level)).all(axis=2))
    return (
        int(columns.min()),
        int(rows.min()),
        int(np.ptp(columns)) + 1,
        int(np.ptp(rows)) + 1,
    )


def inked(sheet: np.ndarray) -> np.ndarray:
    return (np.abs(sheet.astype(int) - np.array(PAPER)) > 100).all(axis=2)


def test_pictures_stand_in_reading_order_in_cells_of_one_size():
    sheet = contact_sheet([(f"p{n}", flat(40 * n)) for n in range(2, 6)], columns=3, cell=64)
    places = [areas(sheet, 40 * n) for n in range(2, 6)]
    assert {place[2:] for place in places} == {(64, 64)}
    assert places[0][1] == places[1][1] == places[2][1] < places[3][1]
    assert places[0][0] == places[3][0] < places[1][0] < places[2][0]


def test_shape_is_kept_and_small_pictures_are_not_enlarged():
    sheet = contact_sheet([("wide", flat(90, 100, 200)), ("small", flat(150, 10, 20))], 2, 64)
    assert areas(sheet, 90)[2:] == (64, 32)
    assert areas(sheet, 150)[2:] == (20, 10)


def test_captions_stand_below_their_picture_and_stay_in_their_cell():
    long = "a caption of many words that never ends " * 5
    sheet = contact_sheet([("", flat(0)), (long, flat(0)), ("", flat(0))], 3, 128)
    below = inked(sheet)[128 + 4 :]
    assert below.any()
    rows, columns = np.nonzero(below)
    assert columns.min() >= 4 + 128
    assert columns.max() < 4 + 128 + 4 + 128 + 4
    assert rows.max() < below.shape[0] - 1


def test_a_row_is_as_high_as_its_highest_picture():
    pictures = [("", flat(90, 30, 60)), ("", flat(120, 40, 60)), ("", flat(150, 20, 60))]
    sheet = contact_sheet(pictures, 2, cell=64)
    assert sheet.shape[0] == 4 + 40 + 4 + 20 + 4
    assert [areas(sheet, level)[1] for level in (90, 120, 150)] == [14, 4, 48]


def test_without_captions_no_room_is_left_for_them():
    bare = contact_sheet([("", flat(90))], 1, 64)
    assert bare.shape[0] == bare.shape[1] == 64 + 8
    assert contact_sheet([("x", flat(90))], 1, 64).shape[0] > bare.shape[0]


def test_the_same_pictures_make_the_same_sheet(photo):
    pictures = [("portrait of an astronaut, 512 px", photo), ("crop", photo[:100, :50])]
    assert np.array_equal(contact_sheet(pictures, 2), contact_sheet(pictures, 2))


def test_text_the_font_lacks_breaks_nothing():
    contact_sheet([("狐 🦊 \x01", flat(90)), ("x" * 500, flat(90)), (" \n", flat(90))], 2, 16)


@pytest.mark.parametrize(("count", "columns", "cell"), [(0, 1, 64), (1, 0, 64), (1, 1, 15)])
def test_an_impossible_sheet_is_refused(count, columns, cell):
    with pytest.raises(ValueError, match="expected at least 1, 1 and 16"):
        contact_sheet([("", flat(90))] * count, columns, cell)


def test_a_grid_has_a_label_for_each_row_and_column():
    rows = [(f"steps {10 * y}", [flat(50 * y + 10 * x + 60) for x in range(3)]) for y in range(2)]
    sheet = grid(rows, ["cfg 5", "cfg 7", "cfg 9"], cell=96, title="seed 1")
    places = {(x, y): areas(sheet, 50 * y + 10 * x + 60) for x in range(3) for y in range(2)}
    assert {place[2:] for place in places.values()} == {(96, 96)}
    assert places[0, 0][0] == places[0, 1][0] < places[1, 0][0]
    assert places[0, 0][1] == places[2, 0][1] < places[0, 1][1]
    ink = inked(sheet)
    left, top = places[0, 0][:2]
    assert ink[:top, left:].any()
    for y in range(2):
        ink_beside = ink[places[0, y][1] : places[0, y][1] + 96, : left - 1]
        assert ink_beside.any()


def test_a_grid_without_labels_has_no_margins():
    sheet = grid([("", [flat(90)])], [""], cell=64)
    assert sheet.shape == (64 + 8, 64 + 8, 3)


def test_a_row_of_another_length_is_refused():
    with pytest.raises(ValueError, match=r"rows of \[1, 2\] pictures for 2 columns"):
        grid([("a", [flat(90)] * 2), ("b", [flat(90)])], ["x", "y"])


def written(text: str, width: int = 320) -> np.ndarray:
    return contact_sheet([(text, flat(0))], 1, width)[width + 4 :]


@pytest.mark.parametrize("text", "ąčéøŹ„¿ЖщДΩφ花海ねコبن")
def test_letters_of_many_scripts_are_shown(text: str):
    boxes = {written(lacking).tobytes() for lacking in ("\U000f0001", f"[U+{ord(text):04X}]")}
    assert written(text).tobytes() not in boxes


def test_what_no_font_has_is_told_apart_by_its_code_point():
    unknown = [written(f"tone {char}") for char in "\U000f0001\U000f0002"]
    assert not np.array_equal(*unknown)
    assert np.array_equal(written("\U000f0001"), written("[U+F0001]"))


def test_arabic_runs_from_right_to_left_and_its_letters_join():
    if not features.check("raqm"):
        pytest.skip("Pillow has no raqm here")
    apart = sum(int(inked(written(char)).any(axis=0).sum()) for char in "بيت")
    assert int(inked(written("بيت")).any(axis=0).sum()) < apart


@pytest.mark.parametrize(("count", "across"), [(2, 2), (4, 2), (5, 3), (16, 4)])
def test_several_pictures_share_the_cell_of_one(count: int, across: int):
    square = together([flat(20 + 10 * n) for n in range(count)], 96)
    assert square.shape == (96, 96, 3)
    side = 96 // across
    above = (96 - side * ((count - 1) // across + 1)) // 2
    for n in range(count):
        left, top = n % across * side, above + n // across * side
        assert areas(square, 20 + 10 * n) == (left, top, side, side)


def test_one_picture_has_the_cell_to_itself_and_none_leaves_it_empty():
    assert together([flat(50)], 64).shape == (300, 300, 3)
    assert (together([], 64) == PAPER).all()


def test_a_title_stands_above_the_first_row():
    plain = contact_sheet([("", flat(90))], 1, 128)
    titled = contact_sheet([("", flat(90))], 1, 128, title="spring")
    added = titled.shape[0] - plain.shape[0]
    assert inked(titled)[:added].any()
    assert areas(titled, 90)[1] == areas(plain, 90)[1] + added
