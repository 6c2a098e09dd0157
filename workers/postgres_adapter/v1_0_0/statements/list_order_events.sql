-- name: list_order_events :many
-- params: order_id
-- description: Reads an order's events in the order in which they were stored.
SELECT position, order_id, sequence, kind, quantity, recorded_at
FROM orders.order_events
WHERE order_id = $1
ORDER BY position
