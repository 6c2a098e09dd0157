-- name: list_orders_by_customer :many
-- params: customer_id, max_rows
-- description: Reads a customer's orders, oldest first.
SELECT order_id, customer_id, sku, quantity, unit_price, total, status, note, revision, created_at, updated_at
FROM orders.orders
WHERE customer_id = $1
ORDER BY created_at, order_id
LIMIT $2
