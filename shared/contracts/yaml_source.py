"""A contract file as plain data plus the place of every key and value, with YAML's traps refused by name.

The parser's events are read one by one instead of composing a document: depth, size and aliases are bounded
before anything is built, and no input reaches code that recurses.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple, NoReturn

import yaml

from omnibase_infra.shared.contracts.rules import Rule
from omnibase_infra.shared.core.errors import Problem

Path = tuple[str | int, ...]

MAX_BYTES: Final = 1024 * 1024
MAX_DEPTH: Final = 64
MAX_VALUES: Final = 20_000

_LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NULLS: Final = frozenset(("", "~", "null", "Null", "NULL"))
_BOOLEANS: Final = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_OLD_BOOLEANS: Final = frozenset(
    form for word in ("yes", "no", "on", "off", "y", "n") for form in (word, word.capitalize(), word.upper())
)
_INTEGER: Final = re.compile(r"[-+]?(?:0|[1-9][0-9]*)\Z", re.ASCII)
_FLOAT: Final = re.compile(r"[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?\Z", re.ASCII)
_ODD_NUMBER: Final = re.compile(
    r"[-+]?(?:\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)|0[0-9_]+|0[xXoObB][0-9A-Fa-f_]+|[0-9][0-9_]*_[0-9_]*)\Z", re.ASCII
)
_TAB_INDENT: Final = re.compile(r"^ *\t", re.MULTILINE)
_MAX_DIGITS: Final = 18  # what fits into a signed 64-bit integer


class Position(NamedTuple):
    """A place in a file, counted from 1."""

    line: int
    column: int


class YamlSource:
    """What was read from a file.

    Attributes:
        file: how problems name the file.
        data: the document as dicts, lists, str, int, float, bool and None; None when nothing could be read.
        problems: what YAML itself or its traps gave, so far.
        missing: what to say about required keys that are not there, by path.
        misspelt: paths of keys that are not there, and were probably meant by unknown keys that are.
    """

    def __init__(self, file: str) -> None:
        self.file = file
        self.data: Any = None
        self.problems: list[Problem] = []
        self.missing: dict[Path, str] = {}
        self.misspelt: set[Path] = set()
        self._values: dict[Path, Position] = {}
        self._keys: dict[Path, Position] = {}

    def position(self, path: Path, *, of_key: bool = False) -> Position:
        """Return the place of the value at `path`, or of its key; of the nearest parent where there is none."""
        while path:
            if of_key and path in self._keys:
                return self._keys[path]
            if path in self._values:
                return self._values[path]
            path = path[:-1]
        return self._values.get((), Position(1, 1))

    def add(self, rule: Rule, message: str, position: Position) -> None:
        """Record a problem at a place."""
        self.problems.append(Problem(self.file, position.line, position.column, message, rule.id))


class _Node:
    """A value with its place; containers hold further nodes, so that aliases can be expanded by reference."""

    __slots__ = ("items", "key_positions", "position", "size", "value")

    def __init__(self, position: Position, value: Any = None) -> None:
        self.position = position
        self.value = value
        self.items: dict[str, _Node] | list[_Node] | None = None
        self.key_positions: dict[str, Position] = {}
        self.size = 1


class _Frame:
    """A container under construction. `key` is the mapping key that waits for its value."""

    __slots__ = ("anchor", "key", "key_position", "node", "skip_value", "waiting")

    def __init__(self, node: _Node, anchor: str | None) -> None:
        self.node = node
        self.anchor = anchor
        self.key = ""
        self.key_position = node.position
        self.waiting = False
        self.skip_value = False


class _StopReadingError(Exception):
    """The rest of the document cannot be read safely; the problem is already recorded."""


def read_yaml(content: bytes, file: str) -> YamlSource:
    """Read one YAML document; problems are collected in the result, nothing is raised."""
    source = YamlSource(file)
    if len(content) > MAX_BYTES:
        source.add(Rule.YAML_SIZE, f"the file has {len(content)} bytes, at most {MAX_BYTES} are read", Position(1, 1))
        return source
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        column = error.start - content.rfind(b"\n", 0, error.start)
        source.add(Rule.FILE_UNREADABLE, "not UTF-8, expected UTF-8 text", Position(line, column))
        return source
    builder = _Builder(source)
    try:
        builder.read(text)
    except _StopReadingError:
        return source
    except yaml.YAMLError as error:
        _report_syntax(source, text, error)
        return source
    for match in _TAB_INDENT.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        if not any(first < line <= last for first, last in builder.block_texts):
            source.add(Rule.YAML_TAB, "a tab in the indentation, expected spaces", Position(line, len(match[0])))
    if builder.root is None:
        source.add(Rule.YAML_SYNTAX, "the file is empty, expected a contract", Position(1, 1))
        return source
    source.data = _plain(builder.root, source)
    return source


class _Builder:
    """Builds nodes from parser events, with an explicit stack."""

    def __init__(self, source: YamlSource) -> None:
        self._source = source
        self._stack: list[_Frame] = []
        self._anchors: dict[str, _Node] = {}
        self._count = 0
        self.root: _Node | None = None
        self.block_texts: list[tuple[int, int]] = []

    def read(self, text: str) -> None:
        """Read all events of `text`."""
        documents = 0
        for event in _events(text):
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    self._stop(Rule.YAML_DOCUMENTS, "a second document starts here, expected one in a file", event)
            elif isinstance(event, yaml.NodeEvent):
                self._read_node(event)
            elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
                self._close()

    def _read_node(self, event: yaml.NodeEvent) -> None:
        self._count += 1
        if self._count > MAX_VALUES:
            self._stop(Rule.YAML_SIZE, f"more than {MAX_VALUES} values", event)
        if len(self._stack) >= MAX_DEPTH:
            self._stop(Rule.YAML_SIZE, f"nested more than {MAX_DEPTH} levels deep", event)
        frame = self._stack[-1] if self._stack else None
        if frame is not None and isinstance(frame.node.items, dict) and not frame.waiting:
            self._read_key(frame, event)
            return
        if isinstance(event, yaml.AliasEvent):
            self._place(self._alias(event))
            return
        self._check_tag(event)
        node = _Node(_position(event))
        anchor = getattr(event, "anchor", None)
        if isinstance(event, yaml.ScalarEvent):
            node.value = self._scalar(event)
            if anchor:
                self._anchors[anchor] = node
            self._place(node)
        else:
            node.items = {} if isinstance(event, yaml.MappingStartEvent) else []
            self._stack.append(_Frame(node, anchor))

    def _read_key(self, frame: _Frame, event: yaml.NodeEvent) -> None:
        position = _position(event)
        frame.waiting, frame.skip_value = True, True
        if not isinstance(event, yaml.ScalarEvent):
            # What follows such a key is usually an unquoted {{template}}; nothing sensible can be read around it.
            self._stop(
                Rule.YAML_KEY, "a list, mapping or alias as key, expected text; quote what was meant as text", event
            )
        self._check_tag(event)
        key = str(event.value)
        if event.implicit[0] and key == "<<":
            self._add(Rule.YAML_ALIAS, "merge keys (<<) are not read; write the keys out", position)
            return
        if event.implicit[0] and not event.style and (key in _BOOLEANS or key in _NULLS or _is_number(key)):
            self._add(Rule.YAML_KEY, f"the key {key or 'null'} is not text; quote it", position)
            return
        items = frame.node.items
        assert isinstance(items, dict)
        if key in items:
            first = frame.node.key_positions[key]
            self._add(
                Rule.YAML_DUPLICATE_KEY,
                f"the key {key!r} appears twice, first in line {first.line}; remove one",
                position,
            )
            return
        frame.key, frame.key_position, frame.skip_value = key, position, False

    def _place(self, node: _Node) -> None:
        """Put a finished node where it belongs."""
        if not self._stack:
            self.root = node
            return
        frame = self._stack[-1]
        if isinstance(frame.node.items, list):
            frame.node.items.append(node)
        else:
            frame.waiting = False
            if not frame.skip_value:
                assert isinstance(frame.node.items, dict)
                frame.node.items[frame.key] = node
                frame.node.key_positions[frame.key] = frame.key_position
        frame.node.size += node.size

    def _close(self) -> None:
        frame = self._stack.pop()
        if frame.anchor:
            self._anchors[frame.anchor] = frame.node
        self._place(frame.node)

    def _alias(self, event: yaml.AliasEvent) -> _Node:
        position = _position(event)
        name = event.anchor
        if any(frame.anchor == name for frame in self._stack):
            self._add(Rule.YAML_ALIAS, f"the alias *{name} contains itself; write the value out", position)
            return _Node(position)
        if name not in self._anchors:
            self._add(Rule.YAML_ALIAS, f"the alias *{name} has no anchor &{name} before it", position)
            return _Node(position)
        target = self._anchors[name]
        self._count += target.size
        if self._count > MAX_VALUES:
            self._stop(Rule.YAML_ALIAS, f"aliases expand to more than {MAX_VALUES} values; write fewer", event)
        return target

    def _check_tag(self, event: yaml.NodeEvent) -> None:
        tag = getattr(event, "tag", None)
        if tag is not None:
            shown = str(tag).replace("tag:yaml.org,2002:", "!!")
            self._add(Rule.YAML_TAG, f"the tag {shown} is not read; remove it", _position(event))

    def _scalar(self, event: yaml.ScalarEvent) -> Any:
        text = str(event.value)
        if event.style in ("|", ">") and event.start_mark is not None and event.end_mark is not None:
            self.block_texts.append((event.start_mark.line + 1, event.end_mark.line + 1))
        if event.style:  # quoted or block text, never plain
            return text
        if text in _NULLS:
            return None
        if text in _BOOLEANS:
            return _BOOLEANS[text]
        position = _position(event)
        if text in _OLD_BOOLEANS:
            self._add(
                Rule.YAML_BOOLEAN,
                f"{text} is a boolean to some readers and text to others; write true, false or {text!r}",
                position,
            )
            return None
        if _ODD_NUMBER.match(text):
            self._add(
                Rule.YAML_NUMBER, f"{text} is read differently by different readers; write a decimal number", position
            )
            return None
        return self._number(text, position) if _is_number(text) else text

    def _number(self, text: str, position: Position) -> int | float | None:
        if _INTEGER.match(text):
            if len(text.lstrip("+-")) <= _MAX_DIGITS:
                return int(text)
        elif abs(value := float(text)) < float("inf"):
            return value
        self._add(Rule.YAML_NUMBER, f"the number {text[:40]} is too large", position)
        return None

    def _add(self, rule: Rule, message: str, position: Position) -> None:
        self._source.add(rule, message, position)

    def _stop(self, rule: Rule, message: str, event: yaml.Event) -> NoReturn:
        self._add(rule, message, _position(event))
        raise _StopReadingError


def _is_number(text: str) -> bool:
    return bool(_INTEGER.match(text) or _FLOAT.match(text))


def _events(text: str) -> Iterator[yaml.Event]:
    yield from yaml.parse(text, Loader=_LOADER)


def _position(event: yaml.Event) -> Position:
    mark = event.start_mark
    return Position(mark.line + 1, mark.column + 1) if mark is not None else Position(1, 1)


def _plain(node: _Node, source: YamlSource) -> Any:
    """Turn nodes into plain data and note where each is. Depth is bounded by the builder."""

    def visit(current: _Node, path: Path) -> Any:
        source._values[path] = current.position
        if isinstance(current.items, dict):
            for key, position in current.key_positions.items():
                source._keys[(*path, key)] = position
            return {key: visit(item, (*path, key)) for key, item in current.items.items()}
        if isinstance(current.items, list):
            return [visit(item, (*path, index)) for index, item in enumerate(current.items)]
        return current.value

    return visit(node, ())


def _report_syntax(source: YamlSource, text: str, error: yaml.YAMLError) -> None:
    """Say what stopped the parser; tabs are named as such, every one, since they are the usual reason."""
    tabs = list(_TAB_INDENT.finditer(text))
    for match in tabs:
        line = text.count("\n", 0, match.start()) + 1
        source.add(Rule.YAML_TAB, "a tab in the indentation, expected spaces", Position(line, len(match[0])))
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        if any(text.count("\n", 0, match.start()) == mark.line for match in tabs):
            return
        context = f" {error.context}" if error.context else ""
        where = Position(mark.line + 1, mark.column + 1)
        source.add(Rule.YAML_SYNTAX, f"not YAML: {error.problem}{context}", where)
    elif isinstance(error, yaml.reader.ReaderError):
        character = error.character if isinstance(error.character, int) else ord(str(error.character)[:1] or "?")
        offset = text.find(chr(character)) if character < 0x110000 else 0
        before = text[: max(offset, 0)]
        where = Position(before.count("\n") + 1, len(before) - before.rfind("\n"))
        source.add(Rule.YAML_SYNTAX, f"the character U+{character:04X} may not stand in YAML", where)
    elif not tabs:
        source.add(Rule.YAML_SYNTAX, f"not YAML: {error}".splitlines()[0], Position(1, 1))
