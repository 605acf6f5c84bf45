SELECT format(
    'ALTER TABLE %I.%I ADD CONSTRAINT %I %s NOT VALID',
    n.nspname,
    c.relname,
    k.conname,
    regexp_replace(pg_get_constraintdef(k.oid), ' NOT VALID$', '')
)
FROM pg_constraint k
JOIN pg_class c ON c.oid = k.conrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE k.contype = 'f' AND k.confrelid = {oid}
    AND k.conrelid <> k.confrelid AND k.conparentid = 0
