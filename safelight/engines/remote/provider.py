"""What all engines of providers have in common: keys, standing, budget, what they cannot do."""

import hashlib
import json
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar, TypeVar

from pydantic import SecretStr

from safelight.engines.identity import EngineIdentity
from safelight.engines.interface import EngineType, PromptRequest, Refusal, Request
from safelight.engines.remote.asking import Provider, passing
from safelight.engines.remote.spending import require_budget
from safelight.errors import (
    AuthMissingError,
    DependencyMissingError,
    InsufficientFundsError,
    InvalidFieldValueError,
    PipelineError,
    RateLimitExceededError,
)
from safelight.progress import note

M = TypeVar("M")
FRESH_SECONDS, FAILED_SECONDS = 60.0, 5.0
"""How long the standing counts that was asked last, where it was good and where it was not."""
PROBE_SECONDS = 10.0
"""How long an answer to such a question may take."""


@dataclass(frozen=True)
class Balance:
    """What an account has left."""

    amount: float
    """How much."""
    unit: str = "USD"
    """Of what."""

    @property
    def shown(self) -> str:
        """For people."""
        return f"{self.amount:.2f} {self.unit}"


@dataclass(frozen=True)
class Standing:
    """How we stand with a provider."""

    refusal: Refusal | None
    """Why it cannot be asked, or does not take us."""
    balance: Balance | None
    """None where it tells none."""
    asked: float
    """When, on the clock of this process."""


class RemoteEngine(ABC):
    """An engine of somebody else, who is paid for each call."""

    engine_id: ClassVar[str]
    engine_type: ClassVar[EngineType] = "remote"
    reproducible: ClassVar[bool] = False
    title: ClassVar[str]
    """As the provider calls itself."""
    variables: ClassVar[tuple[str, ...]]
    """Settings of its keys."""
    version: ClassVar[str]
    """Of the interface that is spoken, with our revision."""
    usd_per_unit: float = 1.0
    """What one unit of the balance is worth."""

    def __init__(self) -> None:
        self._standing: dict[str, Standing] = {}
        self._lock = threading.Lock()

    @abstractmethod
    def keys(self) -> tuple[SecretStr | None, ...]:
        """Of the settings, as `variables` names them."""

    @abstractmethod
    def ask_standing(self) -> Balance | None:
        """Ask whether the provider is there and takes our key, and for the balance.

        Raises:
            PipelineError: it is not, or does not.
        """

    @abstractmethod
    def price(self, request: Request) -> float:
        """What a request costs at the least, in USD.

        Raises:
            PipelineError: the request cannot be served.
        """

    def provider(self) -> Provider:
        """Whom to ask.

        Raises:
            DependencyMissingError: no key is set.
        """
        missing = self._missing()
        if missing:
            raise DependencyMissingError(
                f"{self.title} is not connected: no key is set", f"set {missing}"
            )
        return Provider(self.title, self.secrets())

    def secrets(self) -> tuple[str, ...]:
        """The keys themselves."""
        return tuple(key.get_secret_value().strip() for key in self.keys() if key is not None)

    @property
    def is_connected(self) -> bool:
        """Whether its keys are set."""
        return not self._missing()

    def can(self, request: Request) -> Refusal | None:
        """Whether a key is set, and the provider has what is asked for; it is not asked."""
        try:
            self.provider()
            self.price(request)
        except PipelineError as error:
            return error
        return None

    def health_check(self) -> Refusal | None:
        """Whether it answers."""
        refusal = self.standing().refusal
        busy = isinstance(refusal, RateLimitExceededError)
        return refusal if refusal is not None and passing(refusal) and not busy else None

    def verify_identity(self) -> Refusal | None:
        """Whether it takes our key."""
        missing = self._missing()
        if missing:
            return AuthMissingError(f"no key of {self.title} is set", f"set {missing}")
        refusal = self.standing().refusal
        short = isinstance(refusal, InsufficientFundsError)
        return refusal if refusal is not None and not passing(refusal) and not short else None

    def check_balance(self, request: Request) -> Refusal | None:
        """Whether the account can pay for a request, and our budgets allow it."""
        standing = self.standing()
        if isinstance(standing.refusal, InsufficientFundsError):
            return standing.refusal
        try:
            price = self.price(request)
            require_budget(price)
        except PipelineError as error:
            return error
        left = standing.balance
        if left is not None and (left.amount <= 0 or left.amount * self.usd_per_unit < price):
            return InsufficientFundsError(
                f"{self.title} has {left.shown} left, this needs {price:.4f} USD",
                f"top up the account of {self.title}",
            )
        return None

    def identity(self, request: Request) -> EngineIdentity:
        """The interface and the model; what the provider changes behind it nobody is told."""
        del request
        return EngineIdentity(
            engine_id=self.engine_id, version=self.version, device_class=self.engine_type
        )

    def standing(self) -> Standing:
        """How we stand with it, asked anew after a while."""
        with self._lock:
            who = hashlib.sha256("\n".join((*self.secrets(), *self.places())).encode()).hexdigest()
            known = self._standing.get(who)
            if known is not None:
                lasts = FRESH_SECONDS if known.refusal is None else FAILED_SECONDS
                if time.monotonic() - known.asked < lasts:
                    return known
            found: Balance | None = None
            refusal: Refusal | None = None
            try:
                self.provider()
                found = self.ask_standing()
            except PipelineError as error:
                refusal = error
            self._standing[who] = Standing(refusal, found, time.monotonic())
            return self._standing[who]

    @abstractmethod
    def places(self) -> tuple[str, ...]:
        """Its addresses in the settings."""

    def _missing(self) -> str:
        named = zip(self.variables, self.keys(), strict=True)
        return " and ".join(
            name for name, key in named if key is None or not key.get_secret_value().strip()
        )


def known_model(
    given: str | None, models: Mapping[str, M], usual: str, title: str
) -> tuple[str, M]:
    """A provider's model by its name.

    Args:
        given: the name; None is the usual one.
        models: those that it has for such requests.
        usual: one of them.
        title: of the provider.

    Raises:
        DependencyMissingError: it has none of this name.
    """
    name = given or usual
    if name not in models:
        raise DependencyMissingError(
            f"{title} has no model {name[:80]!r} for this; known are {', '.join(models)}",
            "name one of these, or none",
        )
    return name, models[name]


def require_plain(request: PromptRequest, title: str) -> None:
    """Refuse what a provider cannot be given with a prompt.

    Raises:
        DependencyMissingError: files of this machine would take part.
    """
    parts = {
        "LoRAs": request.loras,
        "embeddings": request.embeddings,
        "ControlNets": request.controlnets,
        "reference pictures": request.ip_adapter,
        "a VAE": request.vae,
        "clip skip": request.clip_skip > 1,
        "a scheduler": request.scheduler,
    }
    given = [name for name, value in parts.items() if value]
    if given:
        raise DependencyMissingError(
            f"{title} draws without {', '.join(given)}",
            "leave them out, or let an engine of this machine draw",
        )


def require_within(name: str, value: float, low: float, high: float, title: str) -> None:
    """Refuse a number that a provider does not take.

    Raises:
        InvalidFieldValueError: it is outside.
    """
    if not low <= value <= high:
        raise InvalidFieldValueError(
            f"{name} is {value:g}, {title} takes {low:g} to {high:g}", f"correct {name}"
        )


def left_out(title: str, **given: object) -> None:
    """Note what takes no part because a provider has no such thing."""
    for name, value in given.items():
        if value:
            note(f"{title} takes no {name.replace('_', ' ')}: it took no part")


def digest_of(request: Request, content: Sequence[bytes], *more: object) -> str:
    """Tells a job from others of the same work.

    Args:
        request: what is asked.
        content: files that go with it.
        more: what else differs.
    """
    seen = hashlib.sha256(type(request).__name__.encode())
    seen.update(json.dumps([asdict(request), *more], sort_keys=True, default=str).encode())
    for each in content:
        seen.update(hashlib.sha256(each).digest())
    return seen.hexdigest()
