-- name: insert_order :one
-- params: order_id, customer_id, sku, quantity, status, extra?
-- description: Stores a new order.
INSERT INTO shop.orders (order_id, customer_id, sku, quantity, status, extra)
VALUES ($1, $2, $3, $4, $5, $6)
RETURNING position, order_id, status, tags, extra, created_at
