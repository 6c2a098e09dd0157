-- name: add_codes :exec
-- params: user, amount, date, codes
-- description: An array as a parameter, so no batch form.
INSERT INTO moves ("user", amount, date, codes) VALUES ($1, $2, $3, $4)
