"""Signing and verifying, on real files of every format."""

import datetime
import io
import os
import stat
from fractions import Fraction

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from PIL import Image

from safelight.errors import InvalidFieldValueError, MissingRequiredFieldError
from safelight.marking import credentials as having
from safelight.marking.deciding import Source, to_be_signed
from safelight.marking.signing import sign_video, signed_picture
from safelight.marking.verifying import verify
from safelight.media.video.encoding import FrameWriter
from safelight.provenance.embed import image_bytes, read_record, video_tags
from safelight.provenance.record import FileRecord
from safelight.settings import reload_settings

DRAWN = FileRecord(
    stage="generate",
    parameters={"prompt": "a fox", "model": "dream"},
    engine_id="diffusers",
    engine_version="1",
    weights=("ab" * 32,),
)


def _picture(photo, media_type="image/png", record=DRAWN, side=48):
    return image_bytes(np.ascontiguousarray(photo[:side, :side]), record, media_type)


def _suffix(media_type):
    return "." + media_type.partition("/")[2]


def _kept(tmp_path, data, media_type="image/png", name="made"):
    path = tmp_path / f"{name}{_suffix(media_type)}"
    path.write_bytes(data)
    return path


def test_the_pictures_of_every_format_say_who_made_them_and_how(volume, photo, tmp_path):
    for media_type in ("image/png", "image/jpeg", "image/webp"):
        plain = _picture(photo, media_type)
        signed = signed_picture(plain, media_type, DRAWN, [])
        path = _kept(tmp_path, signed, media_type)
        verdict = verify(path)
        assert verdict.trusted, (media_type, verdict)
        assert verdict.signer is not None
        assert verdict.signer.name.startswith("Safelight home ")
        (step,) = verdict.steps
        assert (step.stage, step.model, step.weights) == ("generate", "dream", ("ab" * 32,))
        with Image.open(io.BytesIO(plain)) as before, Image.open(path) as after:
            assert np.array_equal(np.asarray(before), np.asarray(after))
        assert read_record(path) == DRAWN
        assert len(signed) - len(plain) < 6000
    del volume


def test_the_same_file_is_signed_with_the_same_bytes(volume, photo):
    plain = _picture(photo)
    first = signed_picture(plain, "image/png", DRAWN, [])
    having._credentials.cache_clear()  # as in another process of this home
    assert signed_picture(plain, "image/png", DRAWN, []) == first
    other = _picture(photo, side=47)
    assert signed_picture(other, "image/png", DRAWN, [])[-100:] != first[-100:] or other != plain
    del volume


def test_one_byte_of_pixels_tells(volume, photo, tmp_path):
    for media_type in ("image/png", "image/jpeg", "image/webp"):
        data = bytearray(signed_picture(_picture(photo, media_type), media_type, DRAWN, []))
        at = len(data) - 60 if media_type != "image/webp" else data.index(b"VP8L") + 400
        data[at] ^= 1
        verdict = verify(_kept(tmp_path, bytes(data), media_type))
        assert verdict.finding == "changed", (media_type, verdict)
        assert any("mismatch" in problem for problem in verdict.problems)
    del volume


def test_what_was_stripped_and_what_never_was_ours(volume, photo, tmp_path):
    plain = _picture(photo)
    assert verify(_kept(tmp_path, plain)).finding == "unsigned"
    buffer = io.BytesIO()
    Image.fromarray(photo[:16, :16]).save(buffer, "PNG")
    assert verify(_kept(tmp_path, buffer.getvalue())).finding == "unknown"
    del volume


def test_a_signature_of_somebody_else_is_told_from_ours(volume, photo, tmp_path, monkeypatch):
    mine = signed_picture(_picture(photo), "image/png", DRAWN, [])
    anchor = having.credentials().anchor
    monkeypatch.setenv("VOLUME_ROOT", str(tmp_path / "elsewhere"))
    reload_settings()
    path = _kept(tmp_path, mine)
    verdict = verify(path)
    assert verdict.finding == "intact"
    assert not verdict.trusted
    trusted = tmp_path / "friend.pem"
    trusted.write_bytes(anchor)
    assert verify(path, trusted).trusted
    # a picture that was signed here, changed and signed again by the other home is theirs
    again = signed_picture(_picture(photo, side=40), "image/png", DRAWN, [])
    monkeypatch.setenv("VOLUME_ROOT", str(volume))
    reload_settings()
    assert not verify(_kept(tmp_path, again)).trusted


def test_the_chain_of_stages_goes_along(volume, photo, tmp_path):
    first = _kept(tmp_path, signed_picture(_picture(photo), "image/png", DRAWN, []), name="first")
    refined = FileRecord(
        stage="refine",
        parameters={"prompt": "a fox"},
        sources=("12" * 32,),
        origin="redraws",
        engine_id="diffusers",
        engine_version="1",
        history=(DRAWN,),
    )
    source = Source("12" * 32, "image/png", first)
    for media_type in ("image/png", "image/jpeg", "image/webp"):
        plain = _picture(photo, media_type, refined)
        signed = signed_picture(plain, media_type, refined, [source])
        assert signed == signed_picture(plain, media_type, refined, [source])
        verdict = verify(_kept(tmp_path, signed, media_type))
        assert verdict.trusted, verdict
        assert [step.stage for step in verdict.steps] == ["generate", "refine"]
        assert verdict.sources == 1
    # several sources, of which one has no signature, and one is damaged
    bare = _kept(tmp_path, _picture(photo), name="bare")
    torn = _kept(tmp_path, first.read_bytes()[:900], name="torn")
    sheet = FileRecord(stage="blend", parameters={}, origin="edits", history=(DRAWN,))
    sheet = sheet.model_copy(update={"sources": ("12" * 32, "34" * 32, "56" * 32)})
    parts = [source, Source("34" * 32, "image/png", bare), Source("56" * 32, "image/png", torn)]
    signed = signed_picture(_picture(photo, record=sheet), "image/png", sheet, parts)
    verdict = verify(_kept(tmp_path, signed))
    assert verdict.trusted, verdict
    assert verdict.sources == 3
    del volume


def test_manifests_above_a_segment_of_jpeg(volume, photo, tmp_path):
    path = _kept(tmp_path, signed_picture(_picture(photo), "image/png", DRAWN, []), name="0")
    history: tuple[FileRecord, ...] = (DRAWN,)
    for step in range(1, 14):
        record = FileRecord(
            stage="refine",
            parameters={"prompt": str(step)},
            sources=("12" * 32,),
            origin="redraws",
            history=history,
        )
        source = Source(f"{step:02d}" * 32, path.suffix.replace(".", "image/"), path)
        data = signed_picture(_picture(photo, "image/jpeg", record), "image/jpeg", record, [source])
        path = _kept(tmp_path, data, "image/jpeg", f"{step}")
        history = (*history, record.model_copy(update={"history": ()}))
    assert data.count(b"JP\x02\x11") > 1 or len(data) > 80_000
    verdict = verify(path)
    assert verdict.trusted, verdict
    assert len(verdict.steps) == 14
    del volume


def test_videos(volume, photo, tmp_path):
    plain, signed = tmp_path / "plain.mp4", tmp_path / "signed.mp4"
    with FrameWriter(plain, Fraction(24), video_tags(DRAWN)) as writer:
        for shift in range(6):
            writer.add(np.ascontiguousarray(photo[shift : shift + 64, :64]))
    sign_video(plain, signed, DRAWN, [])
    again = tmp_path / "again.mp4"
    sign_video(plain, again, DRAWN, [])
    assert signed.read_bytes() == again.read_bytes()
    assert verify(signed).trusted
    data = bytearray(signed.read_bytes())
    data[data.index(b"mdat") + 600] ^= 1
    again.write_bytes(data)
    assert verify(again).finding == "changed"
    del volume


def test_the_key_of_the_home_is_for_its_owner_alone(volume):
    having.credentials()
    file = volume / "signing" / "identity.pem"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert os.listdir(file.parent) == [file.name]


def _studio(tmp_path, key, digest=None):
    name = x509.Name(
        [
            x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "Studio"),
            x509.NameAttribute(x509.NameOID.COMMON_NAME, "The Studio"),
        ]
    )
    now = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=3650))
        .add_extension(x509.BasicConstraints(False, None), critical=True)
        .add_extension(having._usage(signs_certificates=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False
        )
        .sign(key, digest or hashes.SHA256())
    )
    chain, secret = tmp_path / "studio.pem", tmp_path / "studio.key"
    chain.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(having._key_pem(key))
    return chain, secret


def test_the_studios_certificate(volume, photo, tmp_path, monkeypatch):
    for curve, digest in ((ec.SECP256R1(), hashes.SHA256()), (ec.SECP384R1(), hashes.SHA384())):
        chain, secret = _studio(tmp_path, ec.generate_private_key(curve), digest)
        monkeypatch.setenv("SAFELIGHT_MARKING_CERTIFICATE", str(chain))
        monkeypatch.setenv("SAFELIGHT_MARKING_KEY", str(secret))
        reload_settings()
        having._credentials.cache_clear()
        plain = _picture(photo)
        signed = signed_picture(plain, "image/png", DRAWN, [])
        assert signed == signed_picture(plain, "image/png", DRAWN, [])
        verdict = verify(_kept(tmp_path, signed))
        assert verdict.trusted, verdict
        assert verdict.signer is not None
        assert verdict.signer.name == "The Studio"
    assert not (volume / "signing").exists()


def test_certificates_that_do_not_serve_are_refused(volume, tmp_path, monkeypatch):
    chain, secret = _studio(tmp_path, rsa.generate_private_key(65537, 2048))
    monkeypatch.setenv("SAFELIGHT_MARKING_CERTIFICATE", str(chain))
    reload_settings()
    with pytest.raises(MissingRequiredFieldError, match="MARKING_KEY"):
        having.credentials()
    monkeypatch.setenv("SAFELIGHT_MARKING_KEY", str(secret))
    reload_settings()
    with pytest.raises(InvalidFieldValueError, match="expected Ed25519"):
        having.credentials()
    secret.write_bytes(having._key_pem(ec.generate_private_key(ec.SECP256R1())))
    having._credentials.cache_clear()
    with pytest.raises(InvalidFieldValueError, match="not that of the first"):
        having.credentials()
    chain.write_bytes(b"nothing")
    having._credentials.cache_clear()
    with pytest.raises(InvalidFieldValueError, match="hold no certificates"):
        having.credentials()
    del volume


@pytest.mark.parametrize(
    ("setting", "drawn", "enlarged"),
    [("drawn", True, False), ("all", True, True), ("off", False, False)],
)
def test_what_is_signed(volume, monkeypatch, setting, drawn, enlarged):
    monkeypatch.setenv("SAFELIGHT_MARKING", setting)
    reload_settings()
    photograph = FileRecord(stage="upscale", parameters={}, sources=("12" * 32,))
    assert to_be_signed(DRAWN) is drawn
    assert to_be_signed(photograph) is enlarged
    after = photograph.model_copy(update={"history": (DRAWN,)})
    assert to_be_signed(after) is drawn
    del volume
