-- name: add_move :one
-- params: user, amount, date, moved_at?, took?, local_time?, ratio?, blob?
INSERT INTO moves ("user", amount, date, moved_at, took, local_time, ratio, blob)
VALUES (lower($1), $2, $3, $4, $5, $6, $7, $8)
RETURNING "order", "user", amount, date, moved_at, took, local_time, ratio, blob, codes, ok
