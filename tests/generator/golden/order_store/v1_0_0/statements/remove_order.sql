-- name: remove_order :exec
-- params: order_id
-- description: Removes an order.
DELETE FROM shop.orders WHERE order_id = $1
