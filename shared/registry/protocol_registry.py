"""Which protocol of `shared.core.ports` a contract means by a name, and which service of a process speaks it."""

from __future__ import annotations

import difflib
from typing import Any, Final

import msgspec

from omnibase_infra.shared.core.errors import ConfigurationError
from omnibase_infra.shared.core.ports import EffectJournal, EffectStore, RecordProducer


class ProtocolNotSpokenError(ConfigurationError):
    """A service is to stand for a protocol and lacks some of it, or nobody speaks the protocol that is asked for."""

    code = "protocol-not-spoken"


class KnownProtocol(msgspec.Struct, frozen=True):
    """A protocol that contracts may list under `dependencies`.

    Attributes:
        class_name: what the contract calls its class; ONEX names it so.
        protocol: what the code calls it.
    """

    class_name: str
    protocol: Any


PROTOCOLS: Final = (
    KnownProtocol("ProtocolEventBus", RecordProducer),
    KnownProtocol("ProtocolEffectStore", EffectStore),
    KnownProtocol("ProtocolEffectJournal", EffectJournal),
)


class ProtocolRegistry:
    """Who speaks which protocol in one process. Several services may speak one; the first that was bound is given."""

    def __init__(self) -> None:
        self._speakers: dict[str, type[Any]] = {}

    def bind(self, class_name: str, service: type[Any]) -> None:
        """Let a service stand for a protocol; a second one for the same protocol changes nothing.

        Args:
            class_name: the protocol, as contracts call it.
            service: the type under which the container has the service.

        Raises:
            ProtocolNotSpokenError: the class lacks members of the protocol; names them.
            ConfigurationError: there is no such protocol.
        """
        known = known_protocol(class_name)
        missing = [member for member in _members(known.protocol) if not hasattr(service, member)]
        if missing:
            raise ProtocolNotSpokenError(
                f"{service.__name__} does not speak {class_name}: it lacks {', '.join(missing)}",
                hint=f"implement {known.protocol.__name__} of shared.core.ports",
            )
        self._speakers.setdefault(class_name, service)

    def service_for(self, class_name: str) -> type[Any] | None:
        """Return the type of the service that speaks a protocol; None when nobody does.

        Raises:
            ConfigurationError: there is no such protocol.
        """
        return self._speakers.get(known_protocol(class_name).class_name)


def known_protocol(class_name: str) -> KnownProtocol:
    """Return the protocol that a contract means.

    Raises:
        ConfigurationError: there is none of that name; lists those there are.
    """
    for known in PROTOCOLS:
        if known.class_name == class_name:
            return known
    names = [known.class_name for known in PROTOCOLS]
    close = difflib.get_close_matches(class_name, names, n=1)
    raise ConfigurationError(
        f"there is no protocol {class_name!r}; there are: {', '.join(names)}",
        hint=f"did you mean {close[0]!r}?" if close else "",
    )


def _members(protocol: Any) -> list[str]:
    """Return the names of what a protocol's class body declares, sorted."""
    return sorted(name for name in vars(protocol) if not name.startswith("_"))
