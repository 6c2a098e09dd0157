"""Every rule a contract is checked by: a stable id, what it says, why, and how to repair a breach."""

from __future__ import annotations

from enum import Enum


class Rule(Enum):
    """A rule; the member's value is (id, title, why, repair). Ids are never reused."""

    YAML_SYNTAX = ("CT001", "The file is YAML", "Nothing can be read from it otherwise.", "Mend the place named.")
    YAML_DUPLICATE_KEY = (
        "CT002",
        "A key appears once in its mapping",
        "YAML readers silently keep the last one.",
        "Remove one of the two.",
    )
    YAML_BOOLEAN = (
        "CT003",
        "Booleans are true and false",
        "yes, no, on and off are booleans to some readers and text to others.",
        "Write true or false, or quote the text.",
    )
    YAML_TAB = ("CT004", "Indentation is spaces", "YAML forbids tabs there.", "Replace the tab by spaces.")
    YAML_ALIAS = (
        "CT005",
        "Anchors and aliases are plain and small",
        "Recursive or multiplying aliases make documents without end.",
        "Write the value out.",
    )
    YAML_KEY = ("CT006", "Keys are text", "Other keys mean different things to different readers.", "Quote the key.")
    YAML_DOCUMENTS = ("CT007", "A file holds one contract", "A second document would be ignored.", "Split the file.")
    YAML_NUMBER = (
        "CT008",
        "Numbers are plain decimal numbers",
        "NaN, infinity, octal and underscored forms differ between readers.",
        "Write the decimal number, or quote the text.",
    )
    YAML_SIZE = (
        "CT009",
        "The file is of a size people can read",
        "Size, depth and count of values are bounded, so that checking ends soon.",
        "Split or simplify the contract.",
    )
    YAML_TAG = ("CT010", "No YAML tags", "Tags make readers build objects.", "Remove the tag.")
    FILE_UNREADABLE = ("CT011", "The file can be read as UTF-8", "Text files are UTF-8.", "Save the file as UTF-8.")

    UNKNOWN_KEY = (
        "CT101",
        "Every key is known",
        "A misspelt key would be ignored and its default used.",
        "Correct the key or remove it.",
    )
    MISSING_KEY = ("CT102", "Required keys are there", "The worker cannot be made without them.", "Add the key.")
    WRONG_TYPE = ("CT103", "Values have the right type", "Guessing a type hides mistakes.", "Write the type named.")
    WRONG_CHOICE = ("CT104", "Values are among the choices", "Anything else has no meaning.", "Write one of them.")
    OUT_OF_RANGE = ("CT105", "Numbers and lengths are within bounds", "Bounds keep workers safe.", "Change the value.")
    MALFORMED = ("CT106", "Text follows its grammar", "Names and units are read by machines.", "Follow the example.")
    REPEATED = ("CT107", "Lists do not repeat themselves", "A repetition is a mistake.", "Remove one of the two.")

    NODE_TYPE_UNSUPPORTED = (
        "CT201",
        "The generator knows the node type",
        "This version generates effect nodes.",
        "Use node_type: effect, or a later version.",
    )
    NAME_FOLDER = (
        "CT202",
        "Folder and name agree",
        "order_store/ holds NodeOrderStoreEffect: one is derived from the other.",
        "Rename the folder or correct `name`.",
    )
    VERSION_FOLDER = (
        "CT203",
        "Folder and version agree",
        "v1_0_0/ holds version 1.0.0.",
        "Rename the folder or correct `version`.",
    )
    TOPIC_NAME = (
        "CT204",
        "Topic names follow the grammar",
        "One grammar keeps names unique and within Kafka's limits.",
        "Write onex.<kind>.<producer>.<event>.v<N>.",
    )
    TOPIC_KIND = (
        "CT205",
        "Topics are of a kind that belongs there",
        "A worker's retry and dead-letter topics are derived; what it publishes are events.",
        "Use a topic of a kind named in the message.",
    )
    TOPIC_OWNER = (
        "CT206",
        "A worker owns its command topics and what it publishes",
        "The producer segment says who answers for a topic.",
        "Put the worker's own name in the producer segment.",
    )
    TOPIC_TWICE = ("CT207", "A topic is listed once", "Two entries could disagree.", "Remove one of the two.")
    TOPIC_NOT_SUBSCRIBED = (
        "CT208",
        "An operation's topic is subscribed",
        "Its messages would never arrive.",
        "Add the topic to event_bus.subscribe or correct `topic`.",
    )
    CONTROL_TOPIC = (
        "CT209",
        "Operations without the dependency have a topic of their own",
        "They must answer while the dependency is down and its topics are paused.",
        "Put them on onex.cmd.<worker>.control.v1 and the others elsewhere.",
    )
    TOPIC_WITHOUT_OPERATION = (
        "CT210",
        "A subscribed topic has an operation",
        "Records nobody handles would be refused one by one.",
        "Add an operation or remove the topic.",
    )
    TRIGGER = (
        "CT211",
        "An operation is triggered by one message type",
        "Commands are selected by the operation's name, events by `on`.",
        "State `on` for operations on event topics, and only there.",
    )
    TRIGGER_TWICE = (
        "CT212",
        "A message type triggers one operation",
        "A record has one outcome.",
        "Merge the operations or give them other types.",
    )
    OPERATION_TWICE = ("CT213", "Operation names are unique", "Types derive from names.", "Rename one of the two.")
    ANSWER_TOPIC = (
        "CT214",
        "Answers have a topic",
        "An operation that answers needs an evt topic of its worker in event_bus.publish.",
        "Publish onex.evt.<worker>.results.v1.",
    )
    ONE_WAY = (
        "CT215",
        "Commands are answered",
        "Whoever sends a command must learn its outcome.",
        "Remove `answer: false`.",
    )
    REPLY_TOPIC = (
        "CT216",
        "Reply topics are event topics",
        "`replyto` of a command may name only what the contract lists.",
        "List an evt topic.",
    )
    RETRY_TOPIC_CLASH = (
        "CT217",
        "Subscribed topics have retry topics of their own",
        "A retry topic is named by the worker and the source topic's event and version.",
        "Consume one of the topics in another worker.",
    )
    UNKNOWN_KIT = (
        "CT230",
        "The kit is known",
        "A kit generates handler and processor.",
        "Use one of the kits named, or install the one you mean.",
    )
    KIT_OPTION = (
        "CT231",
        "Kit options fit the kit",
        "An option of another kit would do nothing.",
        "See the options named in the message.",
    )
    KIT_DEPENDENCY = (
        "CT232",
        "What an operation needs is a declared dependency",
        "The container gives only what the contract lists.",
        "Add the dependency named in the message.",
    )
    BATCH_KIT = ("CT233", "The kit can batch", "Some work is one record at a time.", "Remove `batch`.")
    BATCH_VALUES = (
        "CT234",
        "Batch values make sense together",
        "A batch that waits longer than its time-out, or holds one record, contradicts itself.",
        "Change `max`, `linger_ms` or `timeout`.",
    )
    ORDERING = (
        "CT235",
        "Order and its consequences agree",
        "Holding a key back means nothing where no order is kept.",
        "Use `ordering: key`, or `on_dead_letter: continue`.",
    )
    INBOX_NEEDS_POSTGRES = (
        "CT240",
        "effectively_once has PostgreSQL",
        "Inbox and outbox are PostgreSQL rows.",
        "Declare the service postgres_pool.",
    )
    TRANSACTIONAL_EFFECT = (
        "CT241",
        "transactional is Kafka to Kafka",
        "A Kafka transaction cannot take back an effect elsewhere.",
        "Use effectively_once.",
    )
    IDEMPOTENCY = (
        "CT242",
        "Repetition is harmless, and why",
        "at_least_once repeats effects after a crash.",
        "State `idempotency`, or use effectively_once.",
    )
    RETRY_TIERS = ("CT243", "Retry delays grow", "Each tier is a longer wait than the last.", "Sort the tiers.")
    DEAD_LETTER_LIMIT = (
        "CT244",
        "Dead-letter limits can be reached",
        "A limit that can never fire protects nobody.",
        "Change `consecutive`, `ratio` or `window`.",
    )
    JOURNAL = (
        "CT245",
        "A journal is for effects elsewhere that happen once",
        "Intent and result are rows beside the inbox; what only reads, or may be repeated, needs none.",
        "Use effectively_once and drop `read_only`, or drop `effect` and `repeatable`.",
    )
    DEPENDENCY_TWICE = ("CT250", "Dependency names are unique", "Names are keys.", "Rename or remove one.")
    DEPENDENCY_UNKNOWN = (
        "CT251",
        "Services are known",
        "The container has a fixed set of services.",
        "Use one of the names and classes in the message.",
    )
    DEPENDENCY_UNUSED = (
        "CT252",
        "Services are used",
        "A service nothing needs still takes connections and start-up time.",
        "Name it in `needs` of the operation that uses it, or remove it.",
    )
    CAPABILITY_TWICE = ("CT253", "Capability names are unique", "Names are keys.", "Rename or remove one.")
    RESOURCES = (
        "CT260",
        "Resources make sense together",
        "Kubernetes refuses requests above limits; replicas above partitions idle.",
        "Change the values named.",
    )
    RATE_LIMIT = (
        "CT261",
        "Rate limits name operations there are",
        "A limit on nothing limits nothing.",
        "Correct the operation's name.",
    )
    REFUSAL_UNANSWERED = (
        "CT262",
        "What a rate limit refuses is answered",
        "A message that is refused without an answer is lost, and nobody hears of it.",
        "Use `on_limit: wait`, or narrow the limit to an operation that answers.",
    )
    DEFINITION_MISSING = (
        "CT301",
        "Every definition referred to exists",
        "Models are generated from definitions.",
        "Add the definition or correct its name.",
    )
    DEFINITION_UNUSED = ("CT302", "Every definition is used", "Unused models are noise.", "Remove the definition.")
    DEFINITION_UNSUPPORTED = (
        "CT303",
        "Definitions use what models can express",
        "The wire decodes typed records; some of JSON Schema has no such form.",
        "Use the constructs named in the message.",
    )
    DEFINITION_CONTRADICTION = (
        "CT304",
        "Definitions can be fulfilled",
        "No payload would ever pass.",
        "Mend the bounds or names.",
    )
    DEFINITION_CYCLE = (
        "CT305",
        "Definitions do not contain themselves",
        "Payloads are bounded in depth.",
        "Break the cycle.",
    )
    STATEMENT_FILE = (
        "CT401",
        "Statement files are beside the contract",
        "They are part of it.",
        "Create the file or correct the path.",
    )
    STATEMENT_HEADER = (
        "CT402",
        "A statement file starts with its header",
        "Name, cardinality and parameters are the statement's interface.",
        "Write `-- name: insert_order :one` and `-- params: …`.",
    )
    STATEMENT_PARAMETERS = (
        "CT403",
        "Parameters and placeholders agree",
        "params names $1, $2 … in order.",
        "Name each placeholder once, in order.",
    )
    STATEMENT_SINGLE = (
        "CT404",
        "A file holds one statement",
        "A file is prepared and typed as a whole.",
        "Split the file.",
    )
    STATEMENT_NAME = ("CT405", "File and statement name agree", "Callers use the name.", "Rename one of the two.")
    STATEMENT_UNUSED = ("CT406", "Every statement file is used", "A forgotten file misleads.", "Use or remove it.")
    STATEMENT_CARDINALITY = (
        "CT408",
        "Cardinality fits the statement",
        ":one and :many need rows, :exec has none.",
        "Add RETURNING, or change the cardinality.",
    )
    MIGRATION_NAME = (
        "CT407",
        "Migrations are numbered without gaps",
        "They run once, in order, on every database.",
        "Number them 0001_what.sql, 0002_what.sql and so on.",
    )
    COMMAND_CONSUMERS = (
        "CT501",
        "A command topic has one consumer",
        "A command must be done once.",
        "Give one of the workers another topic.",
    )
    NODE_TWICE = ("CT502", "Node names are unique", "Names become groups and topics.", "Rename one of the nodes.")
    PRODUCER_MISSING = (
        "CT503",
        "A subscribed topic has a producer",
        "Waiting for messages that nobody sends is a mistake, unless the sender is outside.",
        "Correct the topic, or mark it `external: true`.",
    )
    PARTITION_BUDGET = (
        "CT504",
        "The fleet keeps within its partition budget",
        "Partitions cost memory and recovery time on every broker.",
        "Lower `partitions`.",
    )
    TOPIC_SETTINGS = (
        "CT505",
        "Contracts agree on a topic",
        "One topic has one partition count and one retention.",
        "State settings only in the owner's contract.",
    )

    def __init__(self, identifier: str, title: str, why: str, repair: str) -> None:
        self.id = identifier
        self.title = title
        self.why = why
        self.repair = repair
