-- The statements of the inbox and outbox, by name. Arrays are one element per row; rows are written in the order of
-- their keys, so that two transactions never wait for each other crosswise.

-- name: find_group
SELECT id FROM omnibase.consumer_group WHERE name = $1

-- name: add_group
INSERT INTO omnibase.consumer_group (name) VALUES ($1) ON CONFLICT (name) DO NOTHING

-- name: keep_group
UPDATE omnibase.consumer_group SET keep_days = $2 WHERE id = $1 AND keep_days IS DISTINCT FROM $2

-- name: find_key_format
SELECT by_time_since FROM omnibase.inbox_keys

-- name: claim_inbox
INSERT INTO omnibase.inbox (day, message_key, group_id, "partition", "offset", payload_hash, message_id, topic)
SELECT m.day, m.message_key, $1, m."partition", m."offset", m.payload_hash, m.message_id, m.topic
FROM unnest($2::date[], $3::uuid[], $4::integer[], $5::bigint[], $6::bytea[], $7::text[], $8::text[])
    AS m (day, message_key, "partition", "offset", payload_hash, message_id, topic)
ORDER BY m.message_key
ON CONFLICT DO NOTHING
RETURNING message_key

-- name: read_processed
-- One day at a time, written into the text in place of this one: a parameter would in the end be planned for all
-- partitions, and every one of them be locked.
SELECT i.message_key, i.payload_hash, o.topic, o.record_key, o.value
FROM omnibase.inbox AS i
LEFT JOIN omnibase.outbox AS o ON o.day = i.day AND o.message_key = i.message_key
WHERE i.day = DATE '2000-01-01' AND i.message_key = ANY($1::uuid[])
ORDER BY i.message_key, o.output_index

-- name: store_outbox
INSERT INTO omnibase.outbox (day, message_key, output_index, topic, record_key, value)
SELECT m.day, m.message_key, m.output_index, m.topic, m.record_key, m.value
FROM unnest($1::date[], $2::uuid[], $3::integer[], $4::text[], $5::bytea[], $6::bytea[])
    AS m (day, message_key, output_index, topic, record_key, value)
ORDER BY m.message_key, m.output_index

-- name: intend
INSERT INTO omnibase.effect_intent
    (message_key, group_id, owner, lease_until, payload_hash, message_id, topic, "partition", "offset")
SELECT m.message_key, $1, $2, clock_timestamp() + $3::interval, m.payload_hash, m.message_id, m.topic, m."partition",
    m."offset"
FROM unnest($4::uuid[], $5::bytea[], $6::text[], $7::text[], $8::integer[], $9::bigint[])
    AS m (message_key, payload_hash, message_id, topic, "partition", "offset")
ORDER BY m.message_key
ON CONFLICT DO NOTHING
RETURNING message_key

-- name: lock_intents
SELECT message_key, payload_hash, attempts, lease_until > clock_timestamp() AS held
FROM omnibase.effect_intent
WHERE message_key = ANY($1::uuid[])
ORDER BY message_key
FOR UPDATE

-- name: take_over_intents
UPDATE omnibase.effect_intent
SET owner = $2, lease_until = clock_timestamp() + $3::interval, attempts = attempts + 1
WHERE message_key = ANY($1::uuid[])

-- name: withdraw_intents
DELETE FROM omnibase.effect_intent WHERE message_key = ANY($1::uuid[]) AND owner = $2

-- name: yield_intents
UPDATE omnibase.effect_intent SET lease_until = clock_timestamp() WHERE message_key = ANY($1::uuid[]) AND owner = $2

-- name: conclude_intent
DELETE FROM omnibase.effect_intent WHERE message_key = $1
