"""What a single file of Stable Diffusion 3 or Flux does not bring, and where it lies.

Such files hold a network, and some of them also text encoders and a VAE. The rest is looked for
where people keep it: loose files in `text_encoders`, `clip` and `vae`, as ComfyUI has them, and
folders in the layout of diffusers.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import cast

from pydantic import BaseModel, ConfigDict

from safelight.errors import DependencyMissingError, InvalidMediaError
from safelight.weights.add_ons import find_add_on, name_of, own_root, require_inside
from safelight.weights.folder_parts import lacks
from safelight.weights.hashing import weights_sha256
from safelight.weights.places import PARTS, PARTS_OF_ONE, facts_file, models_folder
from safelight.weights.safety import check_weights
from safelight.weights.used import use

T5, CLIP_L, CLIP_G, WORDS, VAE = "t5xxl", "clip_l", "clip_g", "tokenizer", "vae"
ROLES = {
    "flux": {"text_encoder": CLIP_L, "text_encoder_2": T5, "tokenizer_2": WORDS, "vae": VAE},
    "sd3": {
        "text_encoder": CLIP_L,
        "text_encoder_2": CLIP_G,
        "text_encoder_3": T5,
        "tokenizer_3": WORDS,
        "vae": VAE,
    },
}
"""What a pipeline of each family has beside its transformer and scheduler, by diffusers' names."""
MAY_BE_LEFT_OUT = {"sd3": frozenset({"text_encoder_3"})}
"""Where the facts give null: the pipeline draws without it, another picture than with it."""
STARTS = {
    CLIP_L: ("text_encoders.clip_l.",),
    CLIP_G: ("text_encoders.clip_g.",),
    T5: ("text_encoders.t5xxl.",),
    VAE: ("first_stage_model.", "vae."),
}
"""How tensors of a part begin in a file with several parts."""
_LOOSE = {
    CLIP_L: ("clip_l", "clip-l"),
    CLIP_G: ("clip_g", "clip-g"),
    T5: ("t5xxl", "t5-v1_1-xxl"),
}
"""How the names of loose files begin that people keep."""
_LOOSE_VAES = {"flux": ("ae", "flux_vae", "flux-vae"), "sd3": ("sd3_vae", "sd3-vae", "sd3.5_vae")}
_TELLS_NOTHING = 2
"""Letters of a beginning that says nothing of a longer name."""
_TEXT_FOLDERS, _VAE_FOLDERS = ("text_encoders", "clip"), ("vae",)
_SAID = {
    CLIP_L: ("CLIP-L text encoder", "clip_l.safetensors into {models}/text_encoders"),
    CLIP_G: ("CLIP-G text encoder", "clip_g.safetensors into {models}/text_encoders"),
    T5: ("T5 text encoder", "t5xxl_fp16.safetensors into {models}/text_encoders"),
    WORDS: ("T5 tokenizer", "tokenizer.json and tokenizer_config.json of T5 into {parts}/{role}"),
    VAE: ("VAE", "{vae}.safetensors into {models}/vae"),
}
_FOLDER = "folder"


class Part(BaseModel):
    """A part of a pipeline that does not come with its network."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: str
    """What diffusers calls it: text_encoder_2, tokenizer_2, vae."""
    path: Path | None
    """Its file or folder; None where it is left out, because the facts say so."""
    sha256: str = ""
    """Of its content."""


def held_roles(names: Collection[str], family: str | None) -> frozenset[str]:
    """What of a pipeline a file brings, by the names of its tensors.

    Args:
        names: of all tensors.
        family: flux or sd3; others bring all.
    """
    roles = ROLES.get(str(family), {})
    return frozenset(
        role
        for role, what in roles.items()
        if any(name.startswith(STARTS.get(what, ("\0",))) for name in names)
    )


def parts_of(
    path: Path, family: str, held: frozenset[str], said: object, find: Callable[[str], Path]
) -> tuple[Part, ...]:
    """Everything that a single file does not bring, in the order of its family's roles.

    Args:
        path: of the file.
        family: flux or sd3.
        held: what the file brings, see `held_roles`.
        said: `parts` of the facts beside it: a folder's name, or names by role.
        find: gives the folder of the model of a name.

    Raises:
        DependencyMissingError: something is nowhere; each file is named.
        InvalidMediaError: the facts do not read as expected.
        PipelineError: as `find_add_on`.
    """
    named = _named(path, family, said)
    folders = _folders(path, family, named.get(_FOLDER), find)
    found: list[Part] = []
    missing: list[tuple[str, str]] = []
    for role, what in ROLES[family].items():
        if role in named and named[role] is None:
            found.append(Part(role=role, path=None))
            continue
        if role not in named and role in held:
            continue
        if what == WORDS and _left_out(found, role):
            continue
        there, why = _found(role, what, family, named, folders)
        if there is None:
            missing.append((role, why))
        else:
            found += [_part(role, there), *_words_beside(role, what, there)]
    found += _scheduler(folders[:-1])
    if missing:
        raise _refusal(path, family, missing)
    return tuple(found)


def _named(path: Path, family: str, said: object) -> Mapping[str, str | None]:
    if said is None:
        return {}
    told = {_FOLDER: said} if isinstance(said, str) else said
    roles = [role for role, what in ROLES[family].items() if what != WORDS]
    pairs = cast("dict[object, object]", told).items() if isinstance(told, dict) else ()
    out = MAY_BE_LEFT_OUT.get(family, frozenset[str]())
    fine = all(
        isinstance(value, str) and (role in roles or role == _FOLDER)
        if value is not None
        else role in out
        for role, value in pairs
    )
    if not isinstance(told, dict) or not fine:
        raise InvalidMediaError(
            f"parts in {facts_file(path).name} is {str(said)[:120]}, expected the name of a "
            f"diffusers folder, or names for some of {_FOLDER}, {', '.join(roles)}"
            + (f", null for {', '.join(sorted(out))}" if out else ""),
            f"correct {facts_file(path).name}",
        )
    return cast("dict[str, str | None]", told)


def _folders(path: Path, family: str, named: str | None, find: Callable[[str], Path]) -> list[Path]:
    """Where parts may lie in the layout of diffusers; the last is for all files of the family."""
    folders = [path.with_name(path.stem + PARTS_OF_ONE)]
    if named is not None:
        folders.insert(0, find(named))
    return [*folders, models_folder() / PARTS / family]


def _found(
    role: str,
    what: str,
    family: str,
    named: Mapping[str, str | None],
    folders: list[Path],
) -> tuple[Path | None, str]:
    """Where a part lies; else what is wrong with the one that was found."""
    name = named.get(role)
    if name is not None:
        return find_add_on("vae" if what == VAE else "text_encoders", name), ""
    why = ""
    for folder in folders:
        here = folder / role
        if not here.is_dir():
            continue
        lacking = lacks(here, words=what == WORDS)
        if lacking is None:
            require_inside(here, own_root(here))
            check_weights(here)
            return here, ""
        why = why or f"{here} has no {lacking}"
    for file in _loose(what, family):
        require_inside(file, models_folder())
        check_weights(file)
        return file, ""
    return None, why


def _loose(what: str, family: str) -> Iterator[Path]:
    """Files of the usual names; the shortest name first, then in the order of the alphabet."""
    starts = _LOOSE_VAES[family] if what == VAE else _LOOSE.get(what, ())
    long = tuple(start for start in starts if len(start) > _TELLS_NOTHING)
    for place in _VAE_FOLDERS if what == VAE else _TEXT_FOLDERS:
        folder = models_folder() / place
        there = sorted(folder.iterdir()) if folder.is_dir() else []
        fitting = [
            file
            for file in there
            if file.suffix.lower() == ".safetensors"
            and file.is_file()
            and (file.stem.lower() in starts or file.stem.lower().startswith(long))
        ]
        yield from sorted(fitting, key=lambda file: (file.stem.lower() not in starts, file.name))


def _words_beside(role: str, what: str, there: Path) -> list[Part]:
    """The tokenizer of a text encoder of CLIP that lies in the same folder."""
    beside = there.parent / role.replace("text_encoder", "tokenizer")
    if what not in (CLIP_L, CLIP_G) or not there.is_dir() or not beside.is_dir():
        return []
    check_weights(beside)
    return [_part(beside.name, beside)]


def _scheduler(folders: list[Path]) -> list[Part]:
    """One that is for this file; what is for the whole family could be another model's."""
    here = (folder / "scheduler" for folder in folders)
    found = next((each for each in here if (each / "scheduler_config.json").is_file()), None)
    if found is None:
        return []
    check_weights(found)
    return [_part("scheduler", found)]


def _part(role: str, path: Path) -> Part:
    sha256 = weights_sha256(path)
    use(path, sha256)
    return Part(role=role, path=path, sha256=sha256)


def _left_out(found: list[Part], role: str) -> bool:
    encoder = role.replace("tokenizer", "text_encoder")
    return any(part.role == encoder and part.path is None for part in found)


def _refusal(path: Path, family: str, missing: list[tuple[str, str]]) -> DependencyMissingError:
    models = models_folder()
    roles = ROLES[family]
    told = ", ".join(
        f"{_SAID[roles[role]][0]} ({role}{f': {why}' if why else ''})" for role, why in missing
    )
    places = {"models": models, "parts": models / PARTS / family, "vae": _LOOSE_VAES[family][0]}
    wanted = ", ".join(_SAID[roles[role]][1].format(role=role, **places) for role, _ in missing)
    return DependencyMissingError(
        f"{path.name} does not bring all of its model, and these parts are nowhere: {told}",
        f"put {wanted}; or write the name of a diffusers folder that has them as "
        f'{{"parts": NAME}} into {facts_file(path).name} beside {name_of(path)}',
    )
