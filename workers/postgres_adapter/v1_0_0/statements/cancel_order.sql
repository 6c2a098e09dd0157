-- name: cancel_order :exec
-- params: order_id
-- description: Cancels an open order; answers how many rows changed.
UPDATE orders.orders
SET status = 'cancelled', revision = revision + 1, updated_at = now()
WHERE order_id = $1 AND status = 'open'
