"""The official client of OpenAI and one of the web UI, unchanged but for the address."""

import base64
import io
from urllib.parse import urlsplit

import numpy as np
import openai
import pytest
import webuiapi
from PIL import Image

from tests.gateway.conftest import Gateway
from tests.prefect_pool import eventually


@pytest.fixture(name="client")
def openai_client(gateway: Gateway):
    with openai.OpenAI(base_url=f"{gateway.address}/v1", api_key="any", max_retries=0) as made:
        yield made


def picture(alpha: bool = False) -> bytes:
    pixels = np.full((64, 64, 4), (200, 40, 60, 255), np.uint8)
    if alpha:
        pixels[16:48, 16:48, 3] = 0
    out = io.BytesIO()
    Image.fromarray(pixels if alpha else pixels[..., :3]).save(out, "PNG")
    return out.getvalue()


def opened(data: bytes | str | None) -> np.ndarray:
    assert data is not None
    content = base64.b64decode(data) if isinstance(data, str) else data
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGB"))


def test_the_official_client_draws_and_edits(client: openai.OpenAI):
    more = {"seed": 3}
    drawn = client.images.generate(
        model="untrained", prompt="a red house", size="64x64", n=1, extra_body=more
    )
    assert opened(drawn.data[0].b64_json).shape == (64, 64, 3)
    assert "untrained" in [model.id for model in client.models.list()]

    masked = client.images.edit(
        model="untrained",
        image=("photo.png", picture()),
        mask=("mask.png", picture(alpha=True)),
        prompt="a blue window",
        extra_body=more,
    )
    made = opened(masked.data[0].b64_json)
    assert made.shape == (64, 64, 3)
    assert (made[:8, :8] == (200, 40, 60)).all()  # outside of the mask nothing changes
    assert (made[24:40, 24:40] != (200, 40, 60)).any()

    whole = client.images.edit(
        model="untrained", image=("photo.png", picture()), prompt="at night", extra_body=more
    )
    assert (opened(whole.data[0].b64_json)[:8, :8] != (200, 40, 60)).any()

    with pytest.raises(openai.BadRequestError, match="output_format is 'webp'"):
        client.images.edit(
            image=picture(), prompt="x", output_format="webp", extra_body={"model": "untrained"}
        )
    with pytest.raises(openai.BadRequestError, match="mask is opaque everywhere"):
        client.images.edit(image=picture(), mask=("mask.png", picture()), prompt="x")


@pytest.mark.filterwarnings("ignore:The Sora API")  # of their own service
def test_the_official_client_makes_a_video(client: openai.OpenAI, gateway: Gateway):
    reference = ("first.png", picture(), "image/png")
    made = client.videos.create(
        prompt="slowly nearer",
        input_reference=reference,
        seconds="2",  # type: ignore[arg-type]
        size="64x64",  # type: ignore[arg-type]
    )
    assert (made.object, made.status, made.seconds) == ("video", "queued", "2")
    ended = eventually(
        lambda: (
            now
            if (now := client.videos.retrieve(made.id)).status in ("completed", "failed")
            else None
        ),
        120,
    )
    assert ended.status == "completed", ended.error
    assert ended.progress == 100
    content = client.videos.download_content(made.id)
    assert content.read()[4:8] == b"ftyp"
    shown = client.videos.download_content(made.id, variant="thumbnail")
    assert opened(shown.read()).shape == (64, 64, 3)

    drawn = client.videos.create(prompt="a red house", model="untrained", seconds="2", size="64x64")  # type: ignore[arg-type]
    assert [each.id for each in client.videos.list(limit=1)][:2] == [drawn.id, made.id]
    gone = client.videos.delete(drawn.id)
    assert (gone.deleted, gone.object) == (True, "video.deleted")
    for video in (drawn.id, made.id):
        if video == made.id:
            client.videos.delete(video)
        with pytest.raises(openai.NotFoundError):
            client.videos.retrieve(video)
    told = [
        gateway.client.get("/api/audit", params={"event_type": event, "subject": video}).json()
        for event in ("job.deleted", "job.cancel")
        for video in (drawn.id, made.id)
    ]
    assert [one["total"] for one in told][:2] == [1, 1]
    assert told[0]["lines"][0]["actor"] == "anonymous"
    assert told[3]["total"] == 0  # it had ended
    with pytest.raises(openai.BadRequestError, match="seconds is 12"):
        client.videos.create(prompt="x", seconds="12")


def test_a_client_of_the_web_ui_draws(gateway: Gateway):
    parts = urlsplit(gateway.address)
    api = webuiapi.WebUIApi(host=parts.hostname, port=parts.port, sampler="Euler a", steps=2)
    size = {"width": 64, "height": 64, "seed": 5}
    settings = {"sd_model_checkpoint": "untrained"}
    drawn = api.txt2img(prompt="a red house", override_settings=settings, **size)
    assert drawn.image.size == (64, 64)
    assert "Steps: 2" in drawn.info["infotexts"][0]
    over = api.img2img(
        images=[drawn.image],
        prompt="a blue house",
        denoising_strength=0.6,
        override_settings=settings,
        **size,
    )
    assert over.image.size == (64, 64)
    assert "Euler a" in [each["name"] for each in api.get_samplers()]
    assert api.png_info(drawn.image).info.startswith("a red house")
