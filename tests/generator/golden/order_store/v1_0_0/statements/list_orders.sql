-- name: list_orders :many
-- params: customer_id, statuses, max_rows
-- description: Reads a customer's orders of some statuses, oldest first.
SELECT order_id, sku, quantity, tags
FROM shop.orders
WHERE customer_id = $1 AND status = any($2)
ORDER BY position
LIMIT $3
