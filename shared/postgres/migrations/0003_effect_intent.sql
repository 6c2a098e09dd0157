-- Effects outside PostgreSQL: what was intended is written down before, and removed together with storing the result. What
-- is left after a crash is all there is, so this table stays small and needs no days. A message that is done has its inbox
-- row as always, and none here.
CREATE TABLE omnibase.effect_intent (
    message_key uuid PRIMARY KEY,
    group_id integer NOT NULL,
    owner uuid NOT NULL,
    lease_until timestamptz NOT NULL,
    intended_at timestamptz NOT NULL DEFAULT now(),
    attempts integer NOT NULL DEFAULT 1,
    payload_hash bytea NOT NULL,
    message_id text NOT NULL,
    topic text NOT NULL,
    "partition" integer NOT NULL,
    "offset" bigint NOT NULL
) WITH (fillfactor = 70);
