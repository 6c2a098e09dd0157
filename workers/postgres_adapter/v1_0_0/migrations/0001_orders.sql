-- The example schema: orders as they are now, and every event of an order in the order it was stored.
CREATE SCHEMA IF NOT EXISTS orders;

CREATE TABLE orders.orders (
    order_id uuid PRIMARY KEY,
    customer_id text NOT NULL CHECK (customer_id <> ''),
    sku text NOT NULL CHECK (sku <> ''),
    quantity integer NOT NULL CHECK (quantity > 0),
    unit_price numeric(12, 2) NOT NULL CHECK (unit_price >= 0),
    total numeric(22, 2) NOT NULL GENERATED ALWAYS AS (quantity * unit_price) STORED,
    status text NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'cancelled')),
    note text,
    revision integer NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX orders_by_customer ON orders.orders (customer_id, created_at, order_id);

-- `position` is the order in which the server stored events, `sequence` the order in which the client sent them.
-- There is no unique constraint on (order_id, sequence), on purpose: an event stored twice must be seen as two rows.
CREATE TABLE orders.order_events (
    position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    order_id uuid NOT NULL,
    sequence integer NOT NULL CHECK (sequence > 0),
    kind text NOT NULL CHECK (kind <> ''),
    quantity integer,
    recorded_at timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX order_events_by_order ON orders.order_events (order_id, position);
