"""Settings from the environment; with none set, everything runs offline in ./data."""

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import AliasChoices, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from safelight.errors import InvalidFieldValueError
from safelight.redacting import know

MEGAPIXEL = 1_000_000
ADDRESS = r"^https?://[^\s/?#@]+(/[^\s?#@]*)?$"
"""Of a server: no user, no query."""


class Settings(BaseSettings):
    """What may differ between machines; never what a picture looks like."""

    model_config = SettingsConfigDict(env_prefix="SAFELIGHT_", frozen=True, extra="ignore")

    volume_root: Path = Field(
        default=Path("data"), validation_alias=AliasChoices("VOLUME_ROOT", "volume_root")
    )
    """Folder of characters, uploads, datasets, synthetic, loras, outputs, cache and registry."""
    umask: str = Field(default="077", pattern=r"^0?[0-7]{3}$")
    """Rights that others do not get on what is made below `volume_root`; 007 shares it with the
    group."""
    store: str = Field(default="", pattern=r"^(s3://[^/]+(/.*)?)?$")
    """Empty: the store is `volume_root`. `s3://bucket/prefix`: an S3-compatible bucket."""
    s3_endpoint_url: str | None = None
    """Where the S3 service answers; None is AWS itself."""
    s3_region: str = "us-east-1"
    """Region the requests are signed for."""
    s3_access_key: SecretStr | None = None
    """Access key; None takes boto3's own chain (environment, profile, instance role)."""
    s3_secret_key: SecretStr | None = None
    """Secret key; never logged."""
    s3_path_style: bool = True
    """Bucket in the path, as most services outside AWS need it."""
    s3_public_url: str | None = None
    """Where browsers reach the S3 service, for links; None is `s3_endpoint_url`."""
    gateway_url: str | None = Field(default=None, pattern=r"^https?://[^\s/]+\S*$")
    """Where people reach the gateway, for links on pages and in notices; None links into the
    store."""
    gateway_sign_in: Literal["auto", "always"] = "auto"
    """auto: the gateway asks who somebody is once a key was made or a provider is named."""
    key_requests_per_minute: int = Field(default=6000, ge=1)
    """What a key may send to the gateway that has no limit of its own."""
    session_hours: float = Field(default=12.0, gt=0, le=8760)
    """How long a browser stays signed in."""
    oidc_issuer: str | None = Field(default=None, pattern=ADDRESS)
    """OpenID Connect provider by which people sign in to the gateway."""
    oidc_client_id: str = "safelight"
    """What the provider calls the gateway."""
    oidc_client_secret: SecretStr | None = None
    """Secret that the provider gave the gateway; never logged."""
    oidc_scope: str = "openid profile email groups"
    """What the provider is asked for."""
    oidc_claim: str = "groups"
    """Claim that says what somebody may do."""
    oidc_viewers: str = ""
    """Values of that claim, separated by commas, that make a viewer; `*` is everybody."""
    oidc_operators: str = ""
    """Those that make an operator."""
    oidc_admins: str = ""
    """Those that make an admin."""
    oidc_requests_per_minute: int | None = Field(default=None, ge=1)
    """What each person whom the provider names may send; None is `key_requests_per_minute`."""
    oidc_runs_per_day: int | None = Field(default=None, ge=0)
    """Jobs that each of them may submit in a day (UTC); None is no limit."""
    oidc_gpu_seconds_per_day: float | None = Field(default=None, ge=0)
    """Seconds that the jobs of each may work on a GPU in a day."""
    oidc_usd_per_day: float | None = Field(default=None, ge=0)
    """What the jobs of each may cost at providers in a day."""
    audit_days: int = Field(default=400, ge=1)
    """How long lines of the audit log are kept."""
    webhook_inside: str = ""
    """Hosts, addresses and networks of this machine and its network that web hooks of the gateway
    may call, separated by commas; none by themselves."""
    s3_encryption: Literal["", "AES256", "aws:kms", "aws:kms:dsse"] = ""
    """How the service encrypts what is stored; empty leaves it to the bucket."""
    s3_kms_key: str | None = None
    """Key of `aws:kms`; None is the account's own."""
    store_patience_seconds: float = Field(default=120.0, ge=0)
    """A bucket that does not answer is asked again for this long before a run fails."""
    result_names: str = "{folder}/{name}"
    """Template of what results are called in folders, zips and downloads."""
    export_names: str = ""
    """Template by which every batch also copies its results to `exports` beside the store; empty
    copies only for batches that ask for it."""
    watch_roots: str = ""
    """Folders and `s3://` prefixes, separated by commas, in which runs of `watch` may write results
    and move or delete originals; `exports` of the volume always."""
    marking: Literal["drawn", "all", "off"] = "drawn"
    """Which files are signed (C2PA): those in which a model drew, all results, or none."""
    marking_certificate: Path | None = None
    """PEM of the studio's certificates, the signer's first; None is one that is made on the
    volume at the first signature."""
    marking_key: Path | None = None
    """PEM of the key of `marking_certificate`, without a password: Ed25519, or ECDSA on P-256,
    P-384 or P-521."""
    marking_writer: str = Field(default="", max_length=200)
    """Who writes the prompts, for the IPTC field that asks for it; empty leaves it out."""
    mcp_key: SecretStr | None = None
    """Key that `safelight mcp --http` asks for; None takes those of the gateway; never logged."""
    metrics_port: int | None = Field(default=None, ge=1, le=65535)
    """First of ten ports of which a worker takes a free one to answer Prometheus at `/metrics`;
    None answers nowhere."""
    metrics_host: str = "127.0.0.1"
    """Address that a worker answers Prometheus at; it asks for no key there."""
    log_files: bool = True
    """Whether server, gateway, workers and their processes also write what they do to `logs/` of
    the volume, one JSON object a line."""
    server_auth: Literal["token", "none"] = "token"
    """Whether an embedded server asks for a random password; `none` only where nobody but you can
    reach this machine's loopback."""
    device: str = Field(default="auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")
    """auto takes CUDA when there is any, then Metal, then the CPU."""
    precision: Literal["auto", "fp32", "fp16", "bf16"] = "auto"
    """Number format of models; auto is fp32 on the CPU and fp16 elsewhere."""
    quantise: Literal["none", "int8"] = "none"
    """Keep the weights of networks that draw, and of T5, in eight bits, with the package torchao:
    less memory, other pictures by a little."""
    compile: bool = False
    """Compile the blocks of models that draw, on CUDA: the first picture of each size takes up to
    a minute longer, each further one less time; bits differ from those of models as they are."""
    live_previews: bool = True
    """Show small pictures of what is being drawn, while it is drawn."""
    model_memory_gib: float = Field(default=16.0, gt=0)
    """Loaded models above this are dropped, least recently used first."""
    pixel_memory_mib: int = Field(default=1024, ge=0)
    """Decoded pictures kept for the next stage."""
    input_roots: str = ""
    """Extra folders that inputs may be read from, separated by the platform's path separator."""
    max_input_megapixels: float = Field(default=67.2, gt=0)
    """Larger pictures are refused; 67.2 lets 8192 x 8192 through."""
    look_seconds: float = Field(default=20.0, gt=0, le=86400)
    """Seconds of a processor that looking into a file from outside may take, and one more for each
    MiB of the file; what takes longer is refused."""
    look_memory_gib: float = Field(default=3.0, gt=0)
    """Memory that looking into a file from outside may take; what takes more is refused."""
    models_dir: Path | None = None
    """Folder of the operator's own weights; None is `volume_root`/models."""
    hf_endpoint: str = Field(default="https://huggingface.co", pattern=r"^https?://[^/]+/?$")
    """Where models of Hugging Face are fetched from: the hub itself, or a mirror of it."""
    hf_token: SecretStr | None = None
    """Token of Hugging Face; sent to `hf_endpoint` alone, never logged."""
    civitai_endpoint: str = Field(default="https://civitai.com", pattern=r"^https?://[^/]+/?$")
    """Where models of Civitai are fetched from."""
    civitai_token: SecretStr | None = None
    """Key of Civitai's API; sent to `civitai_endpoint` alone, never logged."""
    comfy_url: str = ""
    """Where a ComfyUI answers that runs workflows; empty is none."""
    comfy_dir: Path | None = None
    """A checkout of ComfyUI that is started here by whatever process runs workflows; where
    `comfy_url` names one, that is used instead."""
    comfy_python: Path | None = None
    """The Python of that checkout's environment; None is that of `venv` or `.venv` in it."""
    comfy_options: str = ""
    """Further words of that ComfyUI's command line, such as --lowvram; none that say where it
    listens."""
    comfy_start_seconds: float = Field(default=180.0, gt=0)
    """How long a ComfyUI that is started here may take until it answers."""
    comfy_headers: SecretStr | None = None
    """JSON object of headers that a proxy before that ComfyUI wants; never logged."""
    comfy_answer_seconds: float = Field(default=30.0, gt=0)
    """A ComfyUI that sends nothing for this long while it answers a question is given up."""
    comfy_patience_seconds: float = Field(default=60.0, ge=0)
    """A ComfyUI that goes away during a workflow is asked again for this long."""
    comfy_stall_seconds: float = Field(default=1800.0, gt=0)
    """A workflow that runs for this long without a step is given up and taken from the server."""
    fal_key: SecretStr | None = None
    """Key of fal, `ID:SECRET`; never logged."""
    fal_url: str = Field(default="https://queue.fal.run", pattern=ADDRESS)
    """Queue of fal."""
    fal_api_url: str = Field(default="https://api.fal.ai", pattern=ADDRESS)
    """Where fal tells the balance."""
    fal_storage_url: str = Field(default="https://rest.fal.ai", pattern=ADDRESS)
    """Where fal takes files."""
    runware_key: SecretStr | None = None
    """Key of Runware; never logged."""
    runware_url: str = Field(default="https://api.runware.ai/v1", pattern=ADDRESS)
    """Where Runware answers."""
    kling_access_key: SecretStr | None = None
    """Access key of Kling; never logged."""
    kling_secret_key: SecretStr | None = None
    """Secret key of Kling, which signs; never sent and never logged."""
    kling_url: str = Field(default="https://api-singapore.klingai.com", pattern=ADDRESS)
    """Where Kling answers; https://api-beijing.klingai.com for accounts of China."""
    kling_unit_usd: float = Field(default=0.14, ge=0, allow_inf_nan=False)
    """What a unit of a resource pack of Kling costs."""
    synclabs_key: SecretStr | None = None
    """Key of Sync Labs; never logged."""
    synclabs_url: str = Field(default="https://api.sync.so", pattern=ADDRESS)
    """Where Sync Labs answers."""
    budget_run_usd: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """What the calls of one run to providers may cost together; None is no limit."""
    budget_day_usd: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """What all calls of one day (UTC) to providers may cost together; None is no limit."""
    provider_answer_seconds: float = Field(default=60.0, gt=0)
    """A provider that sends nothing for this long while it answers is given up."""
    provider_patience_seconds: float = Field(default=120.0, ge=0)
    """A provider that is away, or asks to slow down, is asked again for this long."""
    provider_wait_seconds: float = Field(default=1800.0, gt=0)
    """Work that a provider has not finished after this long is given up."""
    provider_poll_seconds: float = Field(default=1.0, gt=0, le=60)
    """The first pause between two questions whether work is done; it grows to ten times as much."""
    pool_devices: str = Field(
        default="auto", pattern=r"^(auto|cpu(:\d+)?|mps|cuda:\d+(,cuda:\d+)*)$"
    )
    """Devices a worker runs flow runs on, one at a time on each; auto takes every CUDA device, then
    Metal, then `cpu:1`. `cpu:N` is N processes that share the cores."""
    pool_preload: str = ""
    """What a warm process loads when it starts, separated by commas: modules, or `model:NAME`."""
    pool_run_env: str = ""
    """Further environment variables that a run may set by its job variable `env`, separated by
    commas; those that guard the worker are never among them."""
    pool_recycle_after: int = Field(default=1000, ge=1)
    """Flow runs after which a warm process is replaced by a fresh one."""
    pool_process_memory_gib: float | None = Field(default=None, gt=0)
    """A warm process above this is replaced after its run; None is 80 % of the machine's memory,
    shared equally between the devices."""
    pool_silence_seconds: float = Field(default=120.0, ge=10)
    """A process with a run is replaced when it gave no sign of life for this long."""
    pool_stall_seconds: float = Field(default=3600.0, ge=10)
    """A process is replaced when the stage in it made no step for this long."""


@lru_cache(maxsize=1)
def settings() -> Settings:
    """The settings of this process, read once.

    Raises:
        InvalidFieldValueError: a variable holds what its setting does not take.
    """
    try:
        read = Settings()
    except ValidationError as error:
        raise _refused(error) from error
    know(_secrets(read))
    return read


def _secrets(read: Settings) -> Iterator[str]:
    """What no log may hold: keys, tokens, and what a JSON object of them has."""
    for value in read.__dict__.values():
        if isinstance(value, SecretStr):
            secret = value.get_secret_value()
            yield secret
            yield from re.findall(r':\s*"([^"]*)"', secret)


_EXPECTED = {
    "store": "s3://BUCKET or s3://BUCKET/PREFIX, or nothing for a folder",
    "umask": "three octal digits, such as 077",
    "device": "auto, cpu, mps, cuda or cuda:NUMBER",
    "pool_devices": "auto, cpu, cpu:NUMBER, mps or cuda:NUMBER,cuda:NUMBER",
}
"""Settings whose pattern says less than an example."""
_KINDS = {
    "float_parsing": "a number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "bool_parsing": "true or false",
}


def _refused(error: ValidationError) -> InvalidFieldValueError:
    first, *others = error.errors(include_url=False)
    name = str(first["loc"][0])
    variable = _variable(name)
    said = first["msg"].removeprefix("Input should be ")
    expected = _EXPECTED.get(name) or _KINDS.get(first["type"]) or said
    more = f" (and {len(others)} more)" if others else ""
    return InvalidFieldValueError(
        f"{variable} is {first['input']!r}, expected {expected}{more}",
        f"correct {variable}, or unset it",
    )


def _variable(name: str) -> str:
    return name.upper() if name.upper() == "VOLUME_ROOT" else f"SAFELIGHT_{name.upper()}"


def absolute_paths() -> dict[str, str]:
    """Variables of all paths that are set relative to this process's folder, as absolute ones.

    For the environment of a process that runs flows: it works in the folder that a deployment
    names, and a relative path would lead elsewhere from there.
    """
    return {
        _variable(name): str(value.absolute())
        for name, value in settings().__dict__.items()
        if isinstance(value, Path) and not value.is_absolute()
    }


def reload_settings() -> Settings:
    """Read the environment again; for a process whose environment changes between runs."""
    settings.cache_clear()
    return settings()
