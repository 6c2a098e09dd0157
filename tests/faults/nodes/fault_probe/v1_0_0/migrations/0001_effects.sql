-- Effects of the fault bench in the order in which they were committed, and the attempts that were made.
CREATE SCHEMA IF NOT EXISTS faults;

-- No unique constraint, on purpose: an effect that happens twice must be seen as two rows.
CREATE TABLE faults.effects (
    position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    message_id text NOT NULL,
    key text NOT NULL,
    sequence integer NOT NULL,
    pid integer NOT NULL
);

-- Written during COMMIT, so that `number` is the order of commits, not that of inserts.
CREATE TABLE faults.commits (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    position bigint NOT NULL
);

-- While this advisory lock is held by someone, commits wait: the moment in which a fault is put.
CREATE FUNCTION faults.note_commit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(4711);
    INSERT INTO faults.commits (position) VALUES (NEW.position);
    RETURN NULL;
END $$;

CREATE CONSTRAINT TRIGGER effects_note_commit AFTER INSERT ON faults.effects
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION faults.note_commit();

-- Counted outside the effect's transaction: an attempt that failed, or killed its process, is known here.
CREATE TABLE faults.attempts (
    message_id text PRIMARY KEY,
    made integer NOT NULL
);
