-- name: summarise_customer :one
-- params: customer_id
-- columns: orders!, total!, last_order_at?
-- description: Counts and sums a customer's open orders.
SELECT count(*) AS orders, coalesce(sum(total), 0) AS total, max(created_at) AS last_order_at
FROM orders.orders
WHERE customer_id = $1 AND status = 'open'
