"""Where engines take the identity from; manifests, a layer below, hold it too."""

from safelight.provenance.identity import EngineIdentity

__all__ = ["EngineIdentity"]
