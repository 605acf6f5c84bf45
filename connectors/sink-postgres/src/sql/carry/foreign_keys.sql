SELECT format('ALTER TABLE %s ADD CONSTRAINT %I %s', {next}, conname, pg_get_constraintdef(oid))
FROM pg_constraint
WHERE conrelid = {oid} AND contype = 'f' AND conparentid = 0
