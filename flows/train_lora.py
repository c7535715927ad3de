"""A LoRA trained on pictures of one subject or style."""

from typing import Annotated, Any

from prefect.context import FlowRunContext
from prefect.logging import get_run_logger
from pydantic import Field, JsonValue

from flows.running.characters import find_character
from flows.running.inputs import Media, ingest_media
from flows.running.recorded import recorded_flow
from flows.running.signature import with_fields_of
from safelight.characters.gathering import MOST_PICTURES, captions_of, gather
from safelight.characters.records import Character
from safelight.characters.versions import checked_name, claimed, install, keep
from safelight.engines.training import DatasetOptions, TrainingOptions
from safelight.errors import InvalidFieldValueError, MissingFileError, MissingRequiredFieldError
from safelight.params import SEEDS, Seed, checked
from safelight.store.artifact import ArtifactRef
from safelight.store.inputs import allowed_folder
from safelight.weights.checkpoints import find_checkpoint
from tasks.base.recorder import recorder
from tasks.training.asked import TrainParams
from tasks.training.export import ExportParams, export
from tasks.training.prepare import PrepareParams, prepare
from tasks.training.sample import SampleParams, sample
from tasks.training.train import train

STAGES = 4
CAPTIONS = Annotated[str, Field(max_length=20_000)] | None
_DRAWN = SEEDS // 2
"""Seeds of a training; those of a run have a bit more."""


@recorded_flow
@with_fields_of(DatasetOptions, TrainingOptions)
def train_lora(
    *,
    name: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=64,
            description="What the LoRA is called; each training of a name is a version: v1, v2. "
            "None: the trigger word.",
        ),
    ] = None,
    trigger: Annotated[
        str,
        Field(
            max_length=100,
            description="The word for what is learnt: the caption of pictures that have none, and "
            "put where captions say [trigger].",
        ),
    ] = "",
    dataset: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=4096,
            description="A folder of pictures under the volume root or SAFELIGHT_INPUT_ROOTS; a "
            ".txt file of the same stem is a picture's caption.",
        ),
    ] = None,
    pictures: Annotated[
        list[Media] | None,
        Field(
            min_length=1,
            max_length=MOST_PICTURES,
            description="Pictures one by one, in place of a folder.",
        ),
    ] = None,
    captions: Annotated[
        list[CAPTIONS] | None,
        Field(
            max_length=MOST_PICTURES,
            description="Of these pictures, in order; null takes the trigger word.",
        ),
    ] = None,
    character: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=100,
            description="Name or id of a character, whose pictures and trigger word are taken; "
            "what is learnt is a version of its LoRA.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=200,
            description="Model that learns. None: the first of the models folder.",
        ),
    ] = None,
    repeats: Annotated[
        int, Field(ge=1, le=10_000, description="How often each picture is taken an epoch.")
    ] = 1,
    comment: Annotated[
        str, Field(max_length=2000, description="For people; the file keeps it.")
    ] = "",
    seed: Annotated[
        Seed,
        Field(description="Of all that is left to chance. None or -1: one is drawn, and kept."),
    ] = None,
    **options: Any,  # noqa: ANN401  (the fields of both models)
) -> list[ArtifactRef]:
    """Train a LoRA on pictures, try it, and have it among the models by its name."""
    recorder().expected_stages = STAGES
    prepared = checked(DatasetOptions, "train_lora", **_of(DatasetOptions, options))
    training = checked(TrainingOptions, "train_lora", **_of(TrainingOptions, options))
    if character is not None:
        _require_alone(character, name=name, dataset=dataset, pictures=pictures, captions=captions)
        known = find_character(character)
        called, trigger = known.id, trigger or known.trigger
        given, texts = _of_character(known)
    else:
        called = checked_name(name or trigger or _nameless(), "name" if name else "trigger")
        given, texts = _gathered(dataset, pictures, captions)
    read = captions_of(texts, trigger, "train_lora")
    card = find_checkpoint(model)
    chance = (seed or 0) % _DRAWN
    learning = TrainParams.model_validate(
        {
            **training.model_dump(exclude_unset=True),
            "sample_prompts": training.sample_prompts or (trigger or read[0],),
            "model": model,
            "dataset": prepared,
            "seed": chance,
        }
    )
    encoding = PrepareParams.model_validate(
        {
            **prepared.model_dump(exclude_unset=True),
            "model": model,
            "captions": read,
            "repeats": repeats,
            "cache_text": training.caches_text,
            "seed": chance,
        }
    )
    train.identity(learning)  # refused here, before anything loads
    get_run_logger().info("%s: %d pictures, model %s", called, len(given), card.name)
    ready = prepare(given, encoding)
    trained = train(ready, learning)
    shown: list[ArtifactRef] = []
    if training.sample_every:
        looking = {**learning.model_dump(exclude_unset=True), "prompts": learning.sample_prompts}
        shown = sample(trained, SampleParams.model_validate(looking))
    version = claimed(called, _run_id())  # not before: what fails or is cancelled is no version
    writing = {
        **learning.model_dump(exclude_unset=True),
        "name": f"{called}-v{version}",
        "trigger": trigger,
        "comment": comment,
        "licence": card.licence,
    }
    made = export(trained, ExportParams.model_validate(writing))
    config: dict[str, JsonValue] = {
        "name": called,
        "version": version,
        "trigger": trigger,
        "model": card.name,
        "model_sha256": card.sha256,
        "seed": chance,
        "run": _run_id(),
        "repeats": repeats,
        "pictures": [ref.sha256 for ref in given],
        "captions": [*read],
        "dataset": prepared.model_dump(mode="json"),
        "training": learning.model_dump(mode="json", exclude={"dataset", "model", "seed"}),
        "artifacts": [ready.uri, trained.uri, made.uri, *(ref.uri for ref in shown)],
    }
    kept = keep(called, version, made, config)
    install(kept)
    recorder().answer["lora"] = {
        "model": kept.model,
        "name": called,
        "version": version,
        "sha256": kept.sha256,
        "key": kept.key,
    }
    return [*shown, made]


def _of(model: type[DatasetOptions | TrainingOptions], options: dict[str, Any]) -> dict[str, Any]:
    """The options of one model that are not as they are by themselves."""
    fields = model.model_fields
    return {
        name: value
        for name, value in options.items()
        if name in fields and value != fields[name].default
    }


def _nameless() -> str:
    raise MissingRequiredFieldError(
        "train_lora: neither name nor trigger is given", "give name a value"
    )


def _require_alone(character: str, **others: object) -> None:
    """Refuse what would have to be guessed about."""
    given = [name for name, value in others.items() if value is not None]
    if given:
        raise InvalidFieldValueError(
            f"train_lora: character is {character!r}, and {' and '.join(given)} given besides",
            f"leave out {' and '.join(given)}, or character",
        )


def _of_character(character: Character) -> tuple[list[ArtifactRef], list[str | None]]:
    """The pictures of a character; its word is their caption."""
    if not character.pictures:
        raise InvalidFieldValueError(
            f"character {character.id} has no pictures",
            "add some: safelight characters add",
        )
    places = [character.ref(one).uri for one in character.pictures]
    refs = [ingest_media(f"pictures.{at}", place, ("image",)) for at, place in enumerate(places)]
    return refs, [None for _ in refs]


def _gathered(
    dataset: str | None, pictures: list[str] | None, captions: list[str | None] | None
) -> tuple[list[ArtifactRef], list[str | None]]:
    """Pictures and their captions, all looked into."""
    given = [n for n, value in (("dataset", dataset), ("pictures", pictures)) if value is not None]
    if len(given) != 1:
        found = " and ".join(given) + " are" if given else "none of dataset and pictures is"
        error = InvalidFieldValueError if given else MissingRequiredFieldError
        raise error(f"train_lora: {found} given, expected one", "give one of them")
    if dataset is not None:
        if captions is not None:
            raise InvalidFieldValueError(
                "train_lora: captions are given, and dataset is a folder, which has its own",
                "put the captions into .txt files, or give pictures",
            )
        folder = allowed_folder(dataset)
        if folder is None:
            raise MissingFileError(f"{dataset[:200]} is no folder", "name a folder of pictures")
        found = gather(folder)
        if found.left_aside:
            recorder().answer["left_aside"] = [*found.left_aside]
            get_run_logger().warning("left aside: %s", "; ".join(found.left_aside[:20]))
        places = [str(path) for path, _ in found.pictures]
        texts: list[str | None] = [text for _, text in found.pictures]
    else:
        places = list(pictures or ())
        texts = [None for _ in places] if captions is None else [*captions]
        if len(texts) != len(places):
            raise InvalidFieldValueError(
                f"train_lora: {len(texts)} captions for {len(places)} pictures",
                "give one caption for each picture; null takes the trigger word",
            )
    refs = [ingest_media(f"pictures.{at}", place, ("image",)) for at, place in enumerate(places)]
    return refs, texts


def _run_id() -> str:
    context = FlowRunContext.get()
    return str(context.flow_run.id) if context and context.flow_run else "here"
