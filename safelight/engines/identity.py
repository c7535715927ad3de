"""Where engines take the identity from; manifests, a layer below, hold it too."""

from safelight.provenance.identity import EngineIdentity, PassedOver

__all__ = ["EngineIdentity", "PassedOver"]
