-- name: upsert_order :one
-- params: order_id, customer_id, sku, quantity, unit_price, note?
-- description: Stores an order, or replaces what it holds when it exists.
INSERT INTO orders.orders AS existing (order_id, customer_id, sku, quantity, unit_price, note)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (order_id) DO UPDATE SET
    customer_id = excluded.customer_id,
    sku = excluded.sku,
    quantity = excluded.quantity,
    unit_price = excluded.unit_price,
    note = excluded.note,
    revision = existing.revision + 1,
    updated_at = now()
RETURNING order_id, customer_id, sku, quantity, unit_price, total, status, note, revision, created_at, updated_at
