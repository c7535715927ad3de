"""No secret and nobody's folder gets into a text; ordinary words stay."""

import pytest

from safelight import redacting
from safelight.errors import InvalidFieldValueError
from safelight.redacting import know, know_environment, redacted

SECRETS = {
    "openai": "sk-proj-Zm9vYmFyYmF6cXV4MTIzNDU2",
    "github": "ghp_0123456789abcdefghijABCDEFGHIJ012345",
    "hugging_face": "hf_AbCdEfGhIjKlMnOpQrStUvWx",
    "aws": "AKIAIOSFODNN7EXAMPLE",
    "slack": "xoxb-123456789012-abcdefABCDEF",
    "google": "AIzaSyA1234567890abcdefghijklmnopqrstuv",
    "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P",
    "fal": "0f8fad5b-d9cb-469f-a165-70867728950e:0123456789abcdef0123456789abcdef",
    "replicate": "r8_0123456789abcdefghijABCDEFGHIJ",
    "prefect": "pnu_0123456789abcdefghijABCDEFGHIJ",
}
SAID = [("the key {} is refused", SECRETS[name]) for name in SECRETS] + [
    ("GET https://b.s3.amazonaws.com/a.png?X-Amz-Signature={}&X-Amz-Expires=3", "ab12" * 16),
    ("https://x.blob.core.windows.net/c/a.png?sv=2020&sig={}", "q9fF%2Bz1234567890"),
    ("https://host/file?token={}&size=3", "plainwordtoken"),
    ("postgresql+asyncpg://prefect:{}@db:5432/prefect", "swordfish"),
    ("Authorization: Bearer {}", "0123456789abcdefXYZ"),
    ("headers={{'Authorization': 'Key {}'}}", "aaaa-bbbb-cccc-dddd"),
    ('{{"api_key": "{}"}}', "hunter2hunter2"),
    ("password={}", "correcthorse"),
    ("PREFECT_API_AUTH_STRING auth_string: {}", "safelight:abcdef"),
    ("session_token='{}'", "IQoJb3JpZ2luX2VjEJ3"),
    ("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----", "MC4CAQAwBQYDK2VwBCIEIA"),
]


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch):
    """What other tests of this process made known does not count here."""
    monkeypatch.setattr(redacting, "_known", set())
    monkeypatch.setattr(redacting, "_pattern", None)


@pytest.mark.parametrize(("text", "secret"), SAID)
def test_secrets_are_found_by_their_shape(text, secret):
    said = text.format(secret)
    assert secret in said
    assert secret not in redacted(said)
    assert redacting.HIDDEN in redacted(said)
    assert redacted(redacted(said)) == redacted(said)


@pytest.mark.parametrize(
    "text",
    [
        "a red fox in snow, secret garden, token of love",
        "upscale.tile is 8, expected 64 or more",
        "stage generate of run 0f8fad5b-d9cb-469f-a165-70867728950e ended",
        "store:outputs/ab/" + "ab" * 32 + ".png",
        "http://127.0.0.1:4200/api/flow_runs/filter?limit=3",
        "key: the quick brown fox",
        "set SAFELIGHT_FAL_KEY, or run: safelight engines",
        "/work/volume/outputs/a.png and /tmp/x",
        "Steps: 20, Sampler: Euler, Model hash: 0123456789",
    ],
)
def test_ordinary_words_stay(text):
    assert redacted(text) == text


def test_what_is_known_goes_wherever_it_stands():
    know(["plain words as key", "part-one:part-two", "ab"])
    said = "xplain words as keyx part-two part-one ab"
    assert redacted(said) == "x***x *** *** ab"
    know(["safelight:a-long-password"])
    assert redacted("safelight up with a-long-password") == "safelight up with ***"
    know_environment({"MY_SERVICE_TOKEN": "a word or two", "PLACE": "somewhere"})
    assert redacted("a word or two somewhere") == "*** somewhere"


def test_homes(monkeypatch):
    monkeypatch.setenv("HOME", "/srv/people/anna")
    assert redacted("no file at /srv/people/anna/a.png") == "no file at ~/a.png"
    assert redacted("/srv/people/annabel/a.png") == "/srv/people/annabel/a.png"
    assert redacted("'/home/ben/pictures/a.png' '/Users/eve/b'") == "'~/pictures/a.png' '~/b'"
    assert redacted("C:\\Users\\eve\\b.png") == "~\\b.png"
    monkeypatch.setenv("HOME", "/")
    assert redacted("/var/lib/x") == "/var/lib/x"


def test_every_error_is_clean():
    error = InvalidFieldValueError(
        f"image is https://h/a.png?X-Amz-Signature={'ab12' * 16}", "look in /home/ben/pictures"
    )
    assert "ab12ab12" not in str(error)
    assert "ben" not in str(error)
