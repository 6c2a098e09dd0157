-- name: insert_order :one
-- params: order_id, customer_id, sku, quantity, unit_price, note?
-- description: Stores a new order; refused when the order exists.
INSERT INTO orders.orders (order_id, customer_id, sku, quantity, unit_price, note)
VALUES ($1, $2, $3, $4, $5, $6)
RETURNING order_id, customer_id, sku, quantity, unit_price, total, status, note, revision, created_at, updated_at
