-- name: get_order :one
-- params: order_id
-- description: Reads one order with its customer, who may be unknown.
SELECT o.order_id, o.sku, o.quantity, o.status, c.customer_id AS known_customer, c.name AS customer_name
FROM shop.orders AS o
LEFT JOIN shop.customers AS c USING (customer_id)
WHERE o.order_id = $1
