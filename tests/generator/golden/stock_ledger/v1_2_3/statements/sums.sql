-- name: sums :many
-- params: from
-- columns: moves!
-- description: Sums by day and in all.
SELECT date, count(*) AS moves, sum(amount) AS amount
FROM moves
GROUP BY ROLLUP (date)
HAVING count(*) >= $1
ORDER BY date
