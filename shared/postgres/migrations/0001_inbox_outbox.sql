-- What makes an effect happen once: the inbox remembers processed messages, the outbox what was answered.
-- Both are written in the transaction of the effect itself.

-- Consumer groups by number, so that an inbox row does not repeat the name.
CREATE TABLE omnibase.consumer_group (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE
);

-- One row per group, source, message id and redrive. `message_key` is their hash and does not contain the day; the day
-- comes from the message itself, so that a redelivery after midnight finds its row, and leads the key, so that today's
-- rows lie together in the index and a later migration can partition by it.
CREATE TABLE omnibase.inbox (
    day date NOT NULL,
    message_key uuid NOT NULL,
    group_id integer NOT NULL,
    "partition" integer NOT NULL,
    "offset" bigint NOT NULL,
    processed_at timestamptz NOT NULL DEFAULT now(),
    payload_hash bytea NOT NULL,
    message_id text NOT NULL,
    topic text NOT NULL,
    PRIMARY KEY (day, message_key)
);

-- The outputs of a message, exactly as they are produced. Nothing here is marked as sent: a committed offset means
-- that all outputs were confirmed, and until then a redelivery sends them again from here, with the same ids.
CREATE TABLE omnibase.outbox (
    day date NOT NULL,
    message_key uuid NOT NULL,
    output_index integer NOT NULL,
    topic text NOT NULL,
    record_key bytea,
    value bytea NOT NULL,
    PRIMARY KEY (day, message_key, output_index)
);

-- Large answers are kept out of line and uncompressed: they are written once and nearly never read.
ALTER TABLE omnibase.outbox ALTER COLUMN value SET STORAGE EXTERNAL;

-- Rows are only ever added, then removed by whole days.
ALTER TABLE omnibase.inbox SET (autovacuum_vacuum_insert_scale_factor = 0.05);
ALTER TABLE omnibase.outbox SET (autovacuum_vacuum_insert_scale_factor = 0.05);
