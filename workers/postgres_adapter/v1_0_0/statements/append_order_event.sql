-- name: append_order_event :one
-- params: order_id, sequence, kind, quantity?
-- description: Stores the next event of an order; its position tells the order in which events were stored.
INSERT INTO orders.order_events (order_id, sequence, kind, quantity)
VALUES ($1, $2, $3, $4)
RETURNING position, order_id, sequence, kind, quantity, recorded_at
