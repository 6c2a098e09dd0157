-- name: amend_order :one
-- params: order_id, quantity, note?
-- description: Changes quantity and note of an open order.
UPDATE orders.orders
SET quantity = $2, note = $3, revision = revision + 1, updated_at = now()
WHERE order_id = $1 AND status = 'open'
RETURNING order_id, customer_id, sku, quantity, unit_price, total, status, note, revision, created_at, updated_at
