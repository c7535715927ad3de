"""Which version of a LoRA is nearest to the pictures that it was trained on."""

from typing import Annotated

from pydantic import Field, JsonValue

from flows.running.inputs import Seed
from flows.running.recorded import recorded_flow
from safelight.characters.records import PREFIX
from safelight.characters.versions import LoraVersion, find_version, install
from safelight.errors import ContractMismatchError, InvalidFieldValueError, MissingFileError
from safelight.params import SEEDS
from safelight.store.artifact import ArtifactRef
from safelight.store.inputs import find_stored
from safelight.store.store import SCHEME, current_store
from safelight.weights.checkpoints import find_checkpoint
from tasks.base.recorder import recorder
from tasks.base.sampling import LoraUse
from tasks.generate import GenerateParams, generate
from tasks.training.judge import JudgeParams, judge

ASKED = ("{}", "a photo of {}", "a picture of {} in the middle", "show me {}")
"""Prompts, where the caller has none."""
MOST_REFERENCES = 64
STEPS, GUIDANCE = 20, 7.0
"""Where the model recommends nothing else."""


@recorded_flow
def compare_loras(
    name: Annotated[
        str, Field(min_length=1, max_length=100, description="Of the LoRA, or a character's id.")
    ],
    versions: Annotated[
        list[Annotated[str, Field(pattern=r"^v[1-9][0-9]{0,5}$")]],
        Field(min_length=2, max_length=8, description="Which are compared: v1, v2."),
    ],
    prompts: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=2000)]] | None,
        Field(
            min_length=1,
            max_length=16,
            description="What they draw; {} stands for the trigger word. None: a few sentences.",
        ),
    ] = None,
    seed: Seed = None,
) -> ArtifactRef:
    """Draw the same prompts by each version and measure how far they are from the pictures."""
    if len(set(versions)) != len(versions):
        raise InvalidFieldValueError(
            f"compare_loras: versions are {', '.join(versions)}, one of them twice",
            "name each once",
        )
    found = [find_version(name, int(each.removeprefix("v"))) for each in versions]
    models = {str(one.config.get("model")) for one in found}
    if len(models) != 1:
        raise ContractMismatchError(
            f"compare_loras: these versions are for the models {', '.join(sorted(models))}",
            "compare versions for one model",
        )
    references = _references(found)
    (model,) = models
    card = find_checkpoint(model)
    asked = prompts or list(ASKED)
    recorder().expected_stages = len(found) * len(asked) + 1
    drawn: list[ArtifactRef] = []
    for version in found:
        install(version)
        trigger = str(version.config.get("trigger") or version.name)
        for at, prompt in enumerate(asked):
            drawn += generate.named(
                f"v{version.version}.{at}",
                GenerateParams(
                    prompt=prompt.replace("{}", trigger),
                    seed=((seed or 0) + at) % SEEDS,
                    model=model,
                    width=card.native_width,
                    height=card.native_height,
                    steps=card.recommended_steps or STEPS,
                    guidance_scale=card.recommended_guidance_scale or GUIDANCE,
                    loras=(LoraUse(name=version.model),),
                ),
            )
    sheet = judge(
        [*drawn, *references], JudgeParams(prompts=tuple(asked), versions=tuple(versions))
    )
    told = sheet.metadata["distances"]
    means: dict[str, float] = told if isinstance(told, dict) else {}  # pyright: ignore[reportAssignmentType]
    compared: dict[str, JsonValue] = {
        "distances": {name: round(mean, 4) for name, mean in means.items()},
        "nearest": min(means, key=lambda one: means[one]),
        "references": len(references),
    }
    recorder().answer["compared"] = compared
    return sheet


def _references(found: list[LoraVersion]) -> list[ArtifactRef]:
    """The pictures that the versions were trained on, each once.

    Raises:
        MissingFileError: they are gone.
    """
    digests = dict.fromkeys(
        str(digest) for version in found for digest in _listed(version.config.get("pictures"))
    )
    backend = current_store().backend
    name = found[0].name
    where = [f"{PREFIX}/{name}/", *(f"uploads/{digest[:2]}/" for digest in digests)]
    keys = {key for prefix in dict.fromkeys(where) for key in backend.list(prefix)}
    by_digest = {key.rpartition("/")[2].partition(".")[0]: key for key in keys}
    there = [by_digest[digest] for digest in digests if digest in by_digest]
    if not there:
        raise MissingFileError(
            f"none of the {len(digests)} pictures that {name} was trained on is in the store",
            "train it again",
        )
    return [find_stored(SCHEME + key, ("image",)) for key in there[:MOST_REFERENCES]]


def _listed(value: JsonValue) -> list[JsonValue]:
    return value if isinstance(value, list) else []
