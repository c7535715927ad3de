"""Which variables of an environment are real settings, and which files those are that set them."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import yaml
from prefect.settings.base import PrefectBaseSettings
from prefect.settings.models.root import Settings as PrefectSettings
from prefect_redis.cleanup_queue import RedisWorkerCleanupQueueSettings
from prefect_redis.client import RedisMessagingSettings
from prefect_redis.messaging import RedisMessagingPublisherSettings
from pydantic import AliasChoices
from pydantic_settings import BaseSettings

from safelight.settings import Settings

CHECKOUT = Path(__file__).resolve().parents[2]
INFRA = CHECKOUT / "infra"
FROM_FILE = "_FILE"
"""The entry point reads NAME_FILE into NAME."""


def names_of(settings: type[BaseSettings]) -> Iterator[str]:
    """Every name under which the environment sets a field, in capitals."""
    for name, field in settings.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, PrefectBaseSettings):
            yield from names_of(kind)
            continue
        if isinstance(field.validation_alias, AliasChoices):
            choices = [one for one in field.validation_alias.choices if isinstance(one, str)]
            yield from (one.upper() for one in choices)
            if settings is Settings:
                continue  # an alias takes the place of prefix and name
        yield f"{settings.model_config.get('env_prefix', '')}{name}".upper()


REAL = {
    *names_of(PrefectSettings),
    *names_of(RedisMessagingSettings),
    *names_of(RedisMessagingPublisherSettings),
    *names_of(RedisWorkerCleanupQueueSettings),
    *names_of(Settings),
}
OURS = ("PREFECT_", "SAFELIGHT_", "VOLUME_ROOT")


def unknown(names: Iterable[str], files: Iterable[str] = ()) -> set[str]:
    """The names that look like settings of Prefect or of Safelight and are none.

    Args:
        names: of variables.
        files: settings that may be given as NAME_FILE.
    """
    known = REAL | {name + FROM_FILE for name in files}
    return {name for name in names if name.startswith(OURS) and name not in known}


def read_from_files() -> set[str]:
    """The settings that the images' entry point takes from files."""
    text = (INFRA / "docker" / "entrypoint.sh").read_text()
    listed = text.partition("for name in")[2].partition("\ndo\n")[0]
    return set(listed.replace("\\", " ").split())


def load(path: Path) -> list[dict]:
    """Every document of a YAML file."""
    return [document for document in yaml.safe_load_all(path.read_text()) if document]
