SELECT s::text
FROM unnest(current_schemas(false)) WITH ORDINALITY AS path(s, n)
WHERE s NOT IN ($2, 'foldline', 'information_schema') AND s !~ '^pg_'
ORDER BY to_regclass(quote_ident(s) || '.' || $1) IS NULL, n
LIMIT 1
