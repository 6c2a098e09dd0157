"""librdkafka's statistics, reduced to what is used: lag by partition, connected brokers, queue length."""

from __future__ import annotations

from typing import Final

import msgspec

# A partition in one of these states is not being consumed: its numbers are of the past.
_IDLE_STATES: Final = frozenset({"none", "stopping", "stopped"})


class BrokerStatistics(msgspec.Struct, frozen=True):
    """One broker connection. `state` is `UP` when it can be used; `nodeid` is -1 for bootstrap addresses."""

    nodeid: int = -1
    state: str = ""


class PartitionStatistics(msgspec.Struct, frozen=True):
    """One partition of a consumer. Offsets are negative when unknown."""

    partition: int = -1
    fetch_state: str = "none"
    fetchq_cnt: int = 0
    fetchq_size: int = 0
    app_offset: int = -1001
    committed_offset: int = -1001
    lo_offset: int = -1001
    ls_offset: int = -1001
    consumer_lag: int = -1

    @property
    def lag(self) -> int | None:
        """Return the records between the committed offset and the end that `read_committed` sees.

        Where nothing was committed yet, records count from the application's position or the start of the log.
        None for a partition that is not consumed or whose end is not known yet.
        """
        if self.partition < 0 or self.fetch_state in _IDLE_STATES:
            return None
        if self.consumer_lag >= 0:
            return self.consumer_lag
        base = max(self.app_offset, self.lo_offset)
        if self.committed_offset >= 0 or self.ls_offset < 0 or base < 0:
            return None
        return max(0, self.ls_offset - base)


class TopicStatistics(msgspec.Struct, frozen=True):
    """The partitions of one topic, by number as text."""

    partitions: dict[str, PartitionStatistics] = {}


class ClientStatistics(msgspec.Struct, frozen=True):
    """One statistics report of a client.

    Attributes:
        name: the client's instance name.
        msg_cnt / msg_max: records in the producer's queue, and how many fit.
        brokers / topics: by name.
    """

    name: str = ""
    msg_cnt: int = 0
    msg_max: int = 0
    brokers: dict[str, BrokerStatistics] = {}
    topics: dict[str, TopicStatistics] = {}

    def connected_brokers(self) -> int:
        """Return the number of brokers with a usable connection; a broker counts once."""
        return len({broker.nodeid for broker in self.brokers.values() if broker.state == "UP" and broker.nodeid >= 0})

    def lag(self) -> dict[tuple[str, int], int]:
        """Return the lag of every consumed partition whose lag is known, by physical topic and partition number."""
        return {
            (name, partition.partition): lag
            for name, topic in self.topics.items()
            for partition in topic.partitions.values()
            if (lag := partition.lag) is not None
        }

    def fetched(self) -> tuple[int, int]:
        """Return records and bytes that were fetched and not handed to the application yet."""
        partitions = [partition for topic in self.topics.values() for partition in topic.partitions.values()]
        return sum(item.fetchq_cnt for item in partitions), sum(item.fetchq_size for item in partitions)


_decoder: Final = msgspec.json.Decoder(ClientStatistics)


def parse_statistics(text: str) -> ClientStatistics:
    """Parse the JSON text that a client hands to its statistics callback."""
    return _decoder.decode(text)
