CREATE SCHEMA shop;
CREATE TYPE shop.order_status AS ENUM ('open', 'paid', 'it''s gone');
CREATE DOMAIN shop.sku AS text CHECK (value <> '');

CREATE TABLE shop.customers (customer_id text PRIMARY KEY, name text NOT NULL);

CREATE TABLE shop.orders (
    position bigint GENERATED ALWAYS AS IDENTITY,
    order_id uuid PRIMARY KEY,
    customer_id text NOT NULL,
    sku shop.sku NOT NULL,
    quantity smallint NOT NULL CHECK (quantity > 0),
    status shop.order_status NOT NULL DEFAULT 'open',
    tags text[] NOT NULL DEFAULT '{}',
    extra jsonb,
    created_at timestamptz NOT NULL DEFAULT now()
);
