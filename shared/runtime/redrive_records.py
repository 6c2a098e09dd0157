"""What a redrive writes to the worker's retry topics: records that are to run again, and keys that are let go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from omnibase_infra.shared.core.headers import TransportHeader
from omnibase_infra.shared.core.naming import Realm, TopicName
from omnibase_infra.shared.core.ports import OutboundRecord
from omnibase_infra.shared.core.worker_spec import WorkerSpec
from omnibase_infra.shared.runtime.dead_letter_view import TRANSPORT_HEADERS, DeadLetter, Headers, OriginalPlace

RELEASED: Final = b"released"


class RedriveRecords:
    """Builds records for the retry topics of one worker. Pure."""

    def __init__(self, spec: WorkerSpec, realm: Realm, partitions: Mapping[TopicName, int]) -> None:
        """Args:
        spec: of the worker that gave the records up: nobody else is to run them.
        realm: names its topics and its group.
        partitions: of each of its retry topics, as they are on the cluster.
        """
        self._worker = spec.worker
        self._group = realm.group(spec.worker, spec.major)
        self._retries = {source.physical(realm): retry for source, retry in spec.retry_topics.items()}
        self._partitions = partitions

    def refusal(self, letter: DeadLetter) -> str:
        """Return why a dead letter cannot be redriven; empty when it can."""
        original = letter.original
        if original is None:
            return "its headers do not say where it came from: no worker wrote it"
        retry = self._retries.get(original.topic)
        if retry is None:
            return f"{original.topic} is no topic that {self._worker} reads"
        if letter.group and letter.group != self._group:
            return f"it was given up by the group {letter.group}, not by {self._group}"
        if original.partition >= (count := self._partitions[retry]):
            return f"{retry} has {count} partitions, none for {original.topic}[{original.partition}]"
        return ""

    def redriven(
        self, letter: DeadLetter, key: bytes | None, value: bytes | None, headers: Headers, redrive_id: str
    ) -> OutboundRecord:
        """Return the record that runs again: its own key, value and headers, and ours that say what it is.

        Args:
            letter: one without a `refusal`.
            key / value / headers: of the dead letter, or what they were edited to.
            redrive_id: UUIDv7 of the run.
        """
        assert letter.original is not None, "refused before"
        ours = [
            *_original(letter.original),
            (TransportHeader.WORKER, self._worker),
            (TransportHeader.GROUP, self._group),
            (TransportHeader.ATTEMPT, "0"),
            (TransportHeader.FIRST_FAILED_AT, letter.first_failed_at),
            (TransportHeader.REDRIVE_ID, redrive_id),
            (TransportHeader.REDRIVE_GROUP, self._group),
        ]
        return self._record(letter.original, key, value, [*own_headers(headers), *_encoded(ours)])

    def released(self, letter: DeadLetter, key: bytes | None) -> OutboundRecord | None:
        """Return the marker that lets records go which are held behind a discarded dead letter.

        Harmless where nothing is held. None when the dead letter cannot be placed in a retry topic at all.
        """
        if self.refusal(letter):
            return None
        assert letter.original is not None, "refused before"
        ours = [
            *_original(letter.original),
            (TransportHeader.WORKER, self._worker),
            (TransportHeader.GROUP, self._group),
            (TransportHeader.REDRIVE_ID, letter.redrive_id),
        ]
        marker = (str(TransportHeader.PARKED_STATE), RELEASED)
        return self._record(letter.original, key, None, [*_encoded(ours), marker])

    def _record(
        self, original: OriginalPlace, key: bytes | None, value: bytes | None, headers: Headers
    ) -> OutboundRecord:
        topic = str(self._retries[original.topic])
        return OutboundRecord(topic, value, key, headers, partition=original.partition)


def own_headers(headers: Headers) -> list[tuple[str, bytes | None]]:
    """Return the headers that the record had before a worker gave it up."""
    return [(name, content) for name, content in headers if name not in TRANSPORT_HEADERS]


def _original(original: OriginalPlace) -> list[tuple[TransportHeader, str]]:
    return [
        (TransportHeader.ORIGINAL_TOPIC, original.topic),
        (TransportHeader.ORIGINAL_PARTITION, str(original.partition)),
        (TransportHeader.ORIGINAL_OFFSET, str(original.offset)),
        (TransportHeader.ORIGINAL_TIMESTAMP, str(original.timestamp_ms)),
    ]


def _encoded(headers: list[tuple[TransportHeader, str]]) -> list[tuple[str, bytes | None]]:
    return [(str(name), value.encode()) for name, value in headers if value]
