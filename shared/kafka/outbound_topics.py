"""Logical topics of outgoing records to names on the cluster, and no others than the contract lists."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from omnibase_infra.shared.core.errors import TopicNotDeclaredError
from omnibase_infra.shared.core.naming import Realm, TopicName
from omnibase_infra.shared.core.ports import OutboundRecord


class OutboundTopics:
    """Resolves topics, each name once. Safe from any thread: a name that two resolve at once is the same."""

    def __init__(self, realm: Realm, allowed: Collection[str] | None = None, contract: str = "") -> None:
        """Args:
        realm: put in front of the names.
        allowed: logical topics the contract lists; None lets every topic pass, for clients and tools.
        contract: its path, named in the error about a topic that it does not list.
        """
        self._realm = realm
        self._allowed = allowed
        self._contract = contract
        self._physical: dict[str, str] = {}

    def of(self, records: Sequence[OutboundRecord]) -> list[str]:
        """Return the physical topic of each record.

        Raises:
            TopicNotDeclaredError: a topic the contract does not list.
            InvalidNameError: a topic is not a logical name.
        """
        physical = self._physical
        return [physical.get(record.topic) or self._resolve(record.topic) for record in records]

    def _resolve(self, topic: str) -> str:
        """Return the physical name of a topic seen for the first time."""
        if self._allowed is not None and topic not in self._allowed:
            contract = self._contract or "the contract"
            raise TopicNotDeclaredError(
                f"{contract}: the topic {topic!r} is not listed, so this worker may not produce to it",
                hint=f"add `- {topic}` under `event_bus: publish:` and generate again",
            )
        name = TopicName.parse(topic).physical(self._realm)
        self._physical[topic] = name
        return name
