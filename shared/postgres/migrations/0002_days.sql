-- Inbox and outbox become partitioned by day, so that a day that has outlived its use is dropped at once. Rows that are
-- there stay: each old table becomes the partition of all days before tomorrow. A default partition takes the days that
-- have none of their own, so that a message with an absurd day is no failure. Further days are added as time goes by.

-- Waits for running transactions no longer than this, since new ones queue up behind it. Run it again when it was too short.
SET LOCAL lock_timeout = '10s';

LOCK TABLE omnibase.inbox, omnibase.outbox IN ACCESS EXCLUSIVE MODE;

ALTER TABLE omnibase.inbox RENAME TO inbox_before;
ALTER TABLE omnibase.inbox_before RENAME CONSTRAINT inbox_pkey TO inbox_before_pkey;
ALTER TABLE omnibase.outbox RENAME TO outbox_before;
ALTER TABLE omnibase.outbox_before RENAME CONSTRAINT outbox_pkey TO outbox_before_pkey;

CREATE TABLE omnibase.inbox (
    LIKE omnibase.inbox_before INCLUDING ALL EXCLUDING INDEXES, PRIMARY KEY (day, message_key)
) PARTITION BY RANGE (day);
CREATE TABLE omnibase.outbox (
    LIKE omnibase.outbox_before INCLUDING ALL EXCLUDING INDEXES, PRIMARY KEY (day, message_key, output_index)
) PARTITION BY RANGE (day);

CREATE TABLE omnibase.inbox_default PARTITION OF omnibase.inbox DEFAULT;
CREATE TABLE omnibase.outbox_default PARTITION OF omnibase.outbox DEFAULT;

-- The default partition is never dropped; its old rows are found by their age.
CREATE INDEX inbox_default_processed_at ON omnibase.inbox_default (processed_at);

-- How long a consumer group's messages may come again, in days: the longest of all groups decides.
ALTER TABLE omnibase.consumer_group ADD COLUMN keep_days integer;

DO $$
DECLARE
    parent text;
    -- Only clocks that are ahead make rows of this day or later.
    first_day date := (now() AT TIME ZONE 'UTC')::date + 1;
    filled boolean := EXISTS (SELECT FROM omnibase.inbox_before) OR EXISTS (SELECT FROM omnibase.outbox_before);
BEGIN
    FOREACH parent IN ARRAY ARRAY['inbox', 'outbox'] LOOP
        IF filled THEN
            EXECUTE format(
                'WITH ahead AS (DELETE FROM omnibase.%I WHERE day >= $1 RETURNING *) '
                'INSERT INTO omnibase.%I SELECT * FROM ahead', parent || '_before', parent || '_default'
            ) USING first_day;
            EXECUTE format(
                'ALTER TABLE omnibase.%I ATTACH PARTITION omnibase.%I FOR VALUES FROM (MINVALUE) TO (%L)',
                parent, parent || '_before', first_day
            );
        ELSE
            EXECUTE format('DROP TABLE omnibase.%I', parent || '_before');
        END IF;
    END LOOP;
END
$$;
