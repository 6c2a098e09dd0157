"""The registry of the fleet's topics in one realm: names checked and prefixed, metadata looked up.

A façade over the catalogue for people's programs and the command line. It asks no cluster.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator

from omnibase_infra.shared.contracts.model import Contract
from omnibase_infra.shared.core.errors import TopicNotDeclaredError
from omnibase_infra.shared.core.naming import Realm, TopicKind, TopicName
from omnibase_infra.shared.core.settings import Settings
from omnibase_infra.shared.core.worker_spec import WorkerSpec
from omnibase_infra.topics.catalogue import SAFE_REPLICATION, Catalogue, Reader, TopicEntry, derive
from omnibase_infra.topics.declarations import Declaration, from_contract, from_spec
from omnibase_infra.topics.policy import DEFAULT_POLICY, TopicPolicy, require_policy


class TopicRegistry:
    """Every topic of a fleet in one realm."""

    def __init__(self, catalogue: Catalogue, realm: Realm) -> None:
        self.catalogue = catalogue
        self.realm = realm
        self._by_topic = {entry.topic: entry for entry in catalogue.entries}

    @classmethod
    def from_specs(
        cls, specs: Iterable[WorkerSpec], realm: Realm, replication: int = 1, policy: TopicPolicy = DEFAULT_POLICY
    ) -> TopicRegistry:
        """Return the registry of generated workers.

        Raises:
            ContractError: the fleet asks for more than the policy allows.
        """
        return cls._from_declarations(map(from_spec, specs), realm, replication, policy)

    @classmethod
    def from_contracts(
        cls, contracts: Iterable[Contract], realm: Realm, replication: int = 1, policy: TopicPolicy = DEFAULT_POLICY
    ) -> TopicRegistry:
        """Return the registry of contracts; the same one as of the specs that are generated from them.

        Raises:
            ContractError: the fleet asks for more than the policy allows.
        """
        return cls._from_declarations(map(from_contract, contracts), realm, replication, policy)

    @classmethod
    def _from_declarations(
        cls, declarations: Iterable[Declaration], realm: Realm, replication: int, policy: TopicPolicy
    ) -> TopicRegistry:
        fleet = list(declarations)
        catalogue = derive(fleet, replication)
        require_policy(catalogue, fleet, policy)
        return cls(catalogue, realm)

    def __iter__(self) -> Iterator[TopicEntry]:
        return iter(self.catalogue.entries)

    def __len__(self) -> int:
        return len(self.catalogue.entries)

    def __contains__(self, topic: object) -> bool:
        name = TopicName.parse(topic) if isinstance(topic, str) else topic
        return name in self._by_topic

    def entry(self, topic: str | TopicName) -> TopicEntry:
        """Return the metadata of a topic by its logical name.

        Raises:
            InvalidNameError: the name breaks the grammar.
            TopicNotDeclaredError: no contract lists it.
        """
        name = TopicName.parse(topic) if isinstance(topic, str) else topic
        if name not in self._by_topic:
            close = difflib.get_close_matches(str(name), map(str, self._by_topic), n=1)
            raise TopicNotDeclaredError(
                f"no contract lists the topic {name}",
                hint=f"did you mean {close[0]}?" if close else "add it to event_bus of the contract that needs it",
            )
        return self._by_topic[name]

    def physical(self, topic: str | TopicName) -> str:
        """Return the name of a declared topic on the cluster; raises as `entry` does."""
        return self.entry(topic).topic.physical(self.realm)

    def logical(self, physical: str) -> TopicName:
        """Return the logical name of a topic of this realm.

        Raises:
            InvalidNameError: another realm's topic, or none of this grammar.
        """
        return TopicName.parse_physical(physical, self.realm)

    def of_kind(self, kind: TopicKind) -> tuple[TopicEntry, ...]:
        """Return the topics of a kind, sorted by name."""
        return tuple(entry for entry in self if entry.kind == kind)

    def owned_by(self, worker: str) -> tuple[TopicEntry, ...]:
        """Return the topics of a worker, its retry and dead-letter topics included, sorted by name."""
        return tuple(entry for entry in self if entry.owner == worker and not entry.external)

    def read_by(self, worker: str) -> tuple[TopicEntry, ...]:
        """Return the topics a worker consumes, its retry topics included, sorted by name."""
        return tuple(entry for entry in self if any(reader.worker == worker for reader in entry.readers))

    def groups(self) -> dict[str, Reader]:
        """Return every consumer group of the realm by its name."""
        return {reader.group(self.realm): reader for reader in self.catalogue.readers()}

    def workers(self) -> tuple[str, ...]:
        """Return the names of the workers, sorted."""
        return tuple(sorted({entry.owner for entry in self if not entry.external}))


def replication_factor(settings: Settings) -> int:
    """Return how many copies the cluster is to keep: as set, else 3 in prod and staging and 1 elsewhere."""
    if settings.kafka_replication_factor is not None:
        return settings.kafka_replication_factor
    return SAFE_REPLICATION if settings.env in ("prod", "staging") else 1
