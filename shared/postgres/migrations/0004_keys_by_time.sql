-- Keys of messages whose id holds its time begin with that time, so that new rows lie side by side in the index instead of
-- all over it. Rows that are there keep their keys: the new ones begin with a day of which there are none yet, and not
-- before the day after tomorrow, so that all workers are of one release by then.
CREATE TABLE omnibase.inbox_keys (
    by_time_since date NOT NULL
);
INSERT INTO omnibase.inbox_keys (by_time_since)
SELECT CASE WHEN max(day) IS NULL THEN DATE '0001-01-01' ELSE greatest(max(day), (now() AT TIME ZONE 'UTC')::date + 1) + 1 END
FROM omnibase.inbox;
