import pytest
from hypothesis import given
from hypothesis import strategies as st

from safelight.engines.diffusers.samplers import SAMPLERS
from safelight.provenance.parameters_text import parameters_text, parse_parameters, printable
from safelight.provenance.record import FileRecord

PLAIN = """\
girl with an artist's beret, (blue eyes:1.2), desert scene, by Alphonse Mucha, ((eyeshadow))
Negative prompt: ugly, fat, [blurry], bad anatomy, (((deformed)))
Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 965400086, Size: 512x512, Model hash: 45dee52b"""
HIRES = """\
masterpiece, a castle <lora:add_detail:0.6>
on a hill
Negative prompt: EasyNegative,
lowres
Steps: 28, Sampler: DPM++ 2M Karras, CFG scale: 6.5, Seed: 3829406211, Size: 512x768, \
Model hash: 6ce0161689, Model: v1-5-pruned-emaonly, Denoising strength: 0.45, Clip skip: 2, \
ADetailer model: face_yolov8n.pt, Hires upscale: 2, Hires upscaler: R-ESRGAN 4x+, \
Lora hashes: "add_detail: 7c6bad76eb54, epi: 3b1f0a1b", Version: v1.6.0"""
QUOTED = """\
cat
Steps: 30, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7.5, Seed: 1, Size: 1024x1024, \
Model: "a, b: \\"c\\"", Wildcard prompt: "__animal__, \\nsitting", Version: v1.10.1"""


def record(stage="generate", **parameters) -> FileRecord:
    return FileRecord(stage=stage, parameters=parameters)


def test_a_plain_text_is_read():
    found = parse_parameters(PLAIN)
    assert found.prompt == PLAIN.split("\n")[0]
    assert found.negative_prompt == "ugly, fat, [blurry], bad anatomy, (((deformed)))"
    assert found.fields == {
        "Steps": "20",
        "Sampler": "Euler a",
        "CFG scale": "7",
        "Seed": "965400086",
        "Size": "512x512",
        "Model hash": "45dee52b",
    }
    assert found.parameters() == {
        "prompt": found.prompt,
        "negative_prompt": found.negative_prompt,
        "steps": 20,
        "guidance_scale": 7.0,
        "seed": 965400086,
        "width": 512,
        "height": 512,
        "scheduler": "euler_a",
    }


def test_several_lines_hashes_and_the_older_sampler_names_are_read():
    found = parse_parameters(HIRES)
    assert found.prompt == "masterpiece, a castle <lora:add_detail:0.6>\non a hill"
    assert found.negative_prompt == "EasyNegative,\nlowres"
    assert found.fields["Lora hashes"] == "add_detail: 7c6bad76eb54, epi: 3b1f0a1b"
    assert found.fields["Hires upscaler"] == "R-ESRGAN 4x+"
    read = found.parameters()
    assert (read["scheduler"], read["strength"]) == ("dpmpp_2m_karras", 0.45)
    assert (read["width"], read["height"]) == (512, 768)
    assert read["model"] == "v1-5-pruned-emaonly"


def test_quoted_values_are_read():
    fields = parse_parameters(QUOTED).fields
    assert fields["Model"] == 'a, b: "c"'
    assert fields["Wildcard prompt"] == "__animal__, \nsitting"
    assert parse_parameters(QUOTED).parameters()["scheduler"] == "dpmpp_2m_karras"


@pytest.mark.parametrize("text", ["", "just a prompt", "a: b, c", "Negative prompt: only this"])
def test_a_text_without_settings_is_all_prompt(text):
    found = parse_parameters(text)
    assert found.fields == {}
    assert found.prompt + found.negative_prompt == text.removeprefix("Negative prompt: ")


def test_a_number_that_is_none_is_an_error_only_when_asked_for():
    found = parse_parameters("x\nSteps: many, Seed: 1, Size: 8x8")
    with pytest.raises(ValueError, match="many"):
        found.parameters()


def test_stages_after_the_drawing_add_the_second_pass():
    drawn = record(prompt="fox", steps=20, seed=4, width=512, height=768)
    refined = record("refine", refinement_level=0.35, scale=2, steps=12)
    text = parameters_text(refined.model_copy(update={"history": (drawn,)}))
    assert text == (
        "fox\nSteps: 20, Seed: 4, Size: 512x768, Denoising strength: 0.35, Hires upscale: 2, "
        "Hires steps: 12, Version: Safelight 0.1.0"
    )


def test_the_last_drawing_stage_counts():
    first = record(prompt="a fox", seed=1, steps=20)
    again = record("transform", prompt="a wolf", seed=2, steps=30, strength=0.6)
    text = parameters_text(again.model_copy(update={"history": (first,)}))
    assert text is not None
    assert text.startswith("a wolf\nSteps: 30, Seed: 2, Denoising strength: 0.6")


def test_nothing_is_said_where_nothing_was_drawn():
    assert parameters_text(record("grade", look="warm")) is None


def test_loras_are_tags_in_the_prompt():
    loras = [{"name": "add_detail", "weight": 0.6}, {"name": "loras/film.safetensors", "weight": 1}]
    text = parameters_text(record(prompt="a fox", loras=loras, steps=20, seed=1, guidance_scale=7))
    assert text is not None
    assert text.startswith("a fox <lora:add_detail:0.6> <lora:film:1>\nSteps: 20")
    read = parse_parameters(text).parameters()
    assert read["prompt"] == "a fox"
    assert read["loras"] == [
        {"name": "add_detail", "weight": 0.6},
        {"name": "film", "weight": 1.0},
    ]


def test_a_vae_is_told_and_read():
    text = parameters_text(record(prompt="a fox", steps=20, seed=1, model="film", vae="sharp.pt"))
    assert text is not None
    assert "Model: film, VAE: sharp" in text
    assert parse_parameters(text).parameters()["vae"] == "sharp"
    without = parameters_text(record(prompt="a fox", steps=20, seed=1, model="film", vae=None))
    assert without is not None
    assert "VAE" not in without


@pytest.mark.parametrize(
    ("scheduler", "shown"),
    [
        ("euler_a", "Sampler: Euler a"),
        ("dpmpp_2m_sde_karras", "Sampler: DPM++ 2M SDE, Schedule type: Karras"),
        ("FlowMatchEuler", "Sampler: FlowMatchEuler"),
    ],
)
def test_schedulers_have_the_names_other_tools_use(scheduler, shown):
    text = parameters_text(record(prompt="x", steps=5, scheduler=scheduler, seed=0))
    assert text is not None
    assert f"Steps: 5, {shown}, Seed: 0" in text
    assert parse_parameters(text).parameters()["scheduler"] == scheduler


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_that_draws_has_a_name_there_and_comes_back(name: str):
    text = parameters_text(record(prompt="x", steps=5, scheduler=name, seed=0))
    assert text is not None
    assert f"Sampler: {name}" not in text
    assert parse_parameters(text).parameters()["scheduler"] == name


def test_the_model_s_own_sampler_is_told():
    drawn = record(prompt="x", steps=5, scheduler=None, seed=0)
    text = parameters_text(drawn.model_copy(update={"sampler": "dpmpp_2m_karras"}))
    assert text is not None
    assert "Sampler: DPM++ 2M, Schedule type: Karras" in text
    assert "sampler" not in drawn.model_dump()


lines = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@given(
    prompt=st.lists(lines, max_size=3).map("\n".join),
    negative=lines,
    model=lines,
    seed=st.integers(0, 2**64 - 1),
    scale=st.floats(0, 30),
    strength=st.floats(0, 1),
)
def test_what_is_written_is_read_again(prompt, negative, model, seed, scale, strength):
    written = parameters_text(
        record(
            prompt=prompt,
            negative_prompt=negative,
            model=f"m{model}m",
            seed=seed,
            steps=20,
            guidance_scale=scale,
            width=512,
            height=640,
            strength=strength,
        )
    )
    assert written is not None
    found = parse_parameters(written)

    def kept(text: str) -> str:
        return "\n".join(line.strip() for line in printable(text).strip().split("\n"))

    if "Negative prompt:" not in prompt + negative:
        assert found.prompt == kept(prompt)
        assert found.negative_prompt == kept(negative)
    read = found.parameters()
    assert (read["seed"], read["guidance_scale"], read["strength"]) == (seed, scale, strength)
    assert (read["width"], read["height"], read["steps"]) == (512, 640, 20)
    assert found.fields["Version"] == "Safelight 0.1.0"
