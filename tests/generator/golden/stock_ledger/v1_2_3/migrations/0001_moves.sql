CREATE TABLE moves (
    "order" bigserial PRIMARY KEY,
    "user" varchar(40) NOT NULL,
    amount numeric(10, 3) NOT NULL,
    date date NOT NULL,
    moved_at time,
    took interval,
    local_time timestamp,
    ratio double precision,
    blob bytea,
    codes integer[],
    ok boolean NOT NULL DEFAULT true
);
