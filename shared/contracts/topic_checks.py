"""A contract's names, topics and operations against one another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from omnibase_infra.shared.contracts.draft import VERSION_FOLDER, Draft, Located, class_name, versioned_folder
from omnibase_infra.shared.contracts.model import CONTROL_EVENT, Operation, Publication, Subscription
from omnibase_infra.shared.contracts.rules import Rule
from omnibase_infra.shared.contracts.schema_check import closest, did_you_mean
from omnibase_infra.shared.contracts.yaml_source import Path
from omnibase_infra.shared.core.errors import InvalidNameError
from omnibase_infra.shared.core.naming import TopicName, retry_topic

SUBSCRIBED_KINDS: Final = ("cmd", "evt", "intent", "snapshot")
PUBLISHED_KINDS: Final = ("evt", "snapshot")
_DERIVED_KINDS: Final = ("retry", "dlq", "changelog")


def check_identity(draft: Draft) -> None:
    """Folder, name, version and node type agree."""
    contract = draft.contract
    if contract.node_type != "effect":
        message = (
            f"node_type {contract.node_type} is not supported yet by this version of the generator, only effect is"
        )
        draft.report(Rule.NODE_TYPE_UNSUPPORTED, message, ("node_type",))
    if not versioned_folder(contract.path):
        return
    expected = class_name(contract.node, contract.node_type)
    if contract.name and draft.named and contract.name != expected:
        folder = contract.path.parent.parent.name
        message = f"the folder {folder}/ of a node of type {contract.node_type} holds {expected}, not {contract.name}"
        draft.report(Rule.NAME_FOLDER, message, ("name",))
    match = VERSION_FOLDER.match(contract.path.parent.name)
    complete = all(draft.has(("version", part)) for part in ("major", "minor", "patch"))
    if match and complete and match[0] != contract.version.folder:
        message = f"the folder {match[0]}/ holds another version than {contract.version}, which belongs in "
        draft.report(Rule.VERSION_FOLDER, f"{message}{contract.version.folder}/", ("version",))


def check_topics(draft: Draft) -> None:
    """Subscribed and published topics are of the right kinds and owners, each once."""
    for located in draft.subscriptions:
        topic, path = located.item.topic, _name_path(draft, located)
        _check_kind(draft, topic, path, SUBSCRIBED_KINDS, "subscribed")
        if draft.named and topic.kind == "cmd" and topic.producer != draft.contract.worker:
            message = (
                f"the command topic belongs to {topic.producer}; {draft.contract.worker} may consume only "
                f"onex.cmd.{draft.contract.worker}.*"
            )
            draft.report(Rule.TOPIC_OWNER, message, path)
    for publication in draft.publications:
        topic, path = publication.item.topic, _name_path(draft, publication)
        _check_kind(draft, topic, path, PUBLISHED_KINDS, "published")
        if draft.named and topic.kind in PUBLISHED_KINDS and topic.producer != draft.contract.worker:
            message = (
                f"the topic belongs to {topic.producer}; {draft.contract.worker} may publish only "
                f"onex.{topic.kind}.{draft.contract.worker}.*"
            )
            draft.report(Rule.TOPIC_OWNER, message, path)
    _check_repetition(
        draft, [(item.topic, _name_path(draft, Located(item, path))) for item, path in draft.subscriptions]
    )
    _check_repetition(
        draft, [(item.topic, _name_path(draft, Located(item, path))) for item, path in draft.publications]
    )
    _check_external(draft)
    _check_retry_topics(draft)
    _check_reply_topics(draft)


def _name_path(draft: Draft, located: Located[Subscription] | Located[Publication]) -> Path:
    place = (*located.path, "topic")
    return place if draft.has(place) else located.path


def _check_kind(draft: Draft, topic: TopicName, path: Path, allowed: tuple[str, ...], what: str) -> None:
    if topic.kind in allowed:
        return
    reason = "is derived by the registry and not listed" if topic.kind in _DERIVED_KINDS else f"cannot be {what} here"
    message = f"a {topic.kind} topic {reason}; expected {', '.join(allowed)}"
    draft.report(Rule.TOPIC_KIND, message, path)


def _check_repetition(draft: Draft, topics: list[tuple[TopicName, Path]]) -> None:
    seen: set[TopicName] = set()
    for topic, path in topics:
        if topic in seen:
            draft.report(Rule.TOPIC_TWICE, f"the topic {topic} is listed twice; remove one", path)
        seen.add(topic)


def _check_external(draft: Draft) -> None:
    for subscription, path in draft.subscriptions:
        if subscription.external and subscription.topic.producer == draft.contract.worker and draft.named:
            if subscription.topic.kind == "cmd":
                message = "a worker's own command topic is not external: whoever sends commands, the worker owns it"
            else:
                message = "the worker's own topic cannot be external"
            draft.report(Rule.TOPIC_OWNER, message, (*path, "external"))


def _check_retry_topics(draft: Draft) -> None:
    sources: dict[TopicName, TopicName] = {}
    for located in draft.subscriptions:
        topic = located.item.topic
        try:
            retry = retry_topic(draft.contract.worker, topic)
        except InvalidNameError as error:
            draft.report(Rule.TOPIC_NAME, f"its retry topic has no valid name: {error}", _name_path(draft, located))
            continue
        other = sources.setdefault(retry, topic)
        if other != topic:
            message = f"{topic} and {other} would share the retry topic {retry}; consume one of them in another worker"
            draft.report(Rule.RETRY_TOPIC_CLASH, message, _name_path(draft, located))


def _check_reply_topics(draft: Draft) -> None:
    seen: set[TopicName] = set()
    for index, text in enumerate(draft.data.get("event_bus", {}).get("reply_topics", [])):
        topic = next((topic for topic in draft.contract.event_bus.reply_topics if str(topic) == text), None)
        if topic is None:
            continue
        path: Path = ("event_bus", "reply_topics", index)
        if topic.kind != "evt":
            draft.report(Rule.REPLY_TOPIC, f"a reply topic is an evt topic, not {topic.kind}", path)
        if topic in seen:
            draft.report(Rule.TOPIC_TWICE, f"the topic {topic} is listed twice; remove one", path)
        seen.add(topic)


def check_operations(draft: Draft) -> None:
    """Operations are unique, hear a subscribed topic, are triggered by one type and have where to answer."""
    names: set[str] = set()
    triggers: dict[tuple[TopicName, TopicName], str] = {}
    subscribed = {located.item.topic for located in draft.subscriptions}
    for operation, path in draft.operations:
        if operation.name in names:
            message = f"the operation {operation.name!r} is listed twice; rename or remove one"
            draft.report(Rule.OPERATION_TWICE, message, (*path, "name"))
        elif operation.name:
            names.add(operation.name)
            _check_trigger_is_free(draft, operation, path, triggers)
        _check_topic(draft, operation, path, subscribed)
        _check_trigger(draft, operation, path)
    _check_answers(draft)
    _check_unheard_topics(draft)


def _check_topic(draft: Draft, operation: Operation, path: Path, subscribed: set[TopicName]) -> None:
    if operation.topic in subscribed or not draft.readable(("event_bus", "subscribe")):
        return
    if draft.has((*path, "topic")):
        if closest(str(operation.topic), _unread_topics(draft)):
            return  # the entry that was meant has its own message
        hint = did_you_mean(str(operation.topic), map(str, subscribed))
        message = f"the topic {operation.topic} is not in event_bus.subscribe{hint}"
        draft.report(Rule.TOPIC_NOT_SUBSCRIBED, message, (*path, "topic"))
    elif draft.whole(("event_bus", "subscribe")):
        message = f"{operation.name or 'the operation'} hears no topic: add {operation.topic} to event_bus.subscribe"
        draft.report(Rule.TOPIC_NOT_SUBSCRIBED, message, path)


def _unread_topics(draft: Draft) -> list[str]:
    """Texts of the subscriptions that could not be read, any of which may name a topic."""
    texts: list[str] = []
    known = {path[2] for _, path in draft.subscriptions}
    for index, entry in enumerate(draft.source.data.get("event_bus", {}).get("subscribe", [])):
        if index not in known:
            values = entry.values() if isinstance(entry, dict) else [entry]
            texts += [value for value in values if isinstance(value, str)]
    return texts


def _check_trigger(draft: Draft, operation: Operation, path: Path) -> None:
    place = (*path, "on")
    if operation.topic.kind == "cmd":
        if draft.has(place):
            message = f"a command is selected by its type {operation.trigger}; remove `on`"
            draft.report(Rule.TRIGGER, message, place, of_key=True)
        return
    if not draft.has(place):
        example = f"onex.{operation.topic.kind}.{operation.topic.producer}.SOMETHING-HAPPENED.v1"
        message = f"the topic {operation.topic} carries no commands: say by `on` which type triggers it, like {example}"
        draft.report(Rule.TRIGGER, message, path)
    elif operation.trigger.kind != operation.topic.kind:
        message = f"the type is of kind {operation.trigger.kind}, its topic of kind {operation.topic.kind}"
        draft.report(Rule.TRIGGER, message, place)


def _check_trigger_is_free(
    draft: Draft, operation: Operation, path: Path, triggers: dict[tuple[TopicName, TopicName], str]
) -> None:
    other = triggers.setdefault((operation.topic, operation.trigger), operation.name)
    if other != operation.name and draft.has((*path, "on")):
        message = f"{operation.trigger} already triggers {other}"
        draft.report(Rule.TRIGGER_TWICE, message, (*path, "on"))


def _check_answers(draft: Draft) -> None:
    for operation, path in draft.operations:
        if not operation.answer and operation.topic.kind == "cmd":
            message = "commands are always answered; `answer: false` is for operations on event topics"
            draft.report(Rule.ONE_WAY, message, (*path, "answer"))
    answering = [operation.name for operation, _ in draft.operations if operation.answer and operation.name]
    owned = any(item.topic.kind == "evt" for item, _ in draft.publications)
    if answering and not owned and draft.has(("event_bus",)) and draft.whole(("event_bus", "publish")):
        message = (
            f"{answering[0]} answers, and there is no topic for it: add onex.evt.{draft.contract.worker}.results.v1 to "
            "event_bus.publish"
        )
        draft.report(Rule.ANSWER_TOPIC, message, ("event_bus", "publish"), of_key=True)


def _check_unheard_topics(draft: Draft) -> None:
    if (
        not draft.whole(("io_operations",))
        or not draft.operations
        or any(operation.kit not in draft.kits for operation, _ in draft.operations)
    ):
        return  # what could not be read may hear them
    heard = {operation.topic for operation, _ in draft.operations}
    for located in draft.subscriptions:
        if located.item.topic not in heard:
            message = f"no operation hears {located.item.topic}; give one `topic: {located.item.topic}`, or remove it"
            draft.report(Rule.TOPIC_WITHOUT_OPERATION, message, _name_path(draft, located))


def check_control_topic(draft: Draft) -> None:
    """What must answer while a dependency is down shares no topic with what needs the dependency."""
    by_topic: dict[TopicName, list[Located[Operation]]] = {}
    for located in draft.operations:
        by_topic.setdefault(located.item.topic, []).append(located)
    control = f"onex.cmd.{draft.contract.worker}.{CONTROL_EVENT}.v1"
    for topic, located_operations in by_topic.items():
        needing = [operation for operation, _ in located_operations if operation.needs]
        for operation, path in located_operations:
            if operation.kit not in draft.kits:
                continue
            place = (*path, "topic") if draft.has((*path, "topic")) else path
            if _is_control_kit(draft.kits, operation):
                if not operation.is_control:
                    message = f"{operation.kit} must answer while the dependency is down: use the topic {control}"
                    draft.report(Rule.CONTROL_TOPIC, message, place)
            elif operation.is_control and operation.needs:
                needs = ", ".join(operation.needs)
                message = f"{operation.name} needs {needs} and may not wait on the control topic; use another topic"
                draft.report(Rule.CONTROL_TOPIC, message, place)
            elif not operation.needs and needing and not operation.is_control and topic.kind == "cmd":
                message = (
                    f"{operation.name} needs no service, but {topic} is paused while the service of "
                    f"{needing[0].name} is down; use the topic {control}"
                )
                draft.report(Rule.CONTROL_TOPIC, message, place)


def _is_control_kit(kits: Mapping[str, object], operation: Operation) -> bool:
    kit = kits.get(operation.kit)
    return bool(getattr(kit, "control", False))
