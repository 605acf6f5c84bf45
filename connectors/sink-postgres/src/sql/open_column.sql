ALTER TABLE {schema}.verdicts
    ADD COLUMN definition text,
    ADD COLUMN open boolean NOT NULL DEFAULT false
