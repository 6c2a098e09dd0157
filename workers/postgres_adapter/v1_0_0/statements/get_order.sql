-- name: get_order :one
-- params: order_id
-- description: Reads one order.
SELECT order_id, customer_id, sku, quantity, unit_price, total, status, note, revision, created_at, updated_at
FROM orders.orders
WHERE order_id = $1
