ALTER TABLE {schema}.holes
    ADD COLUMN IF NOT EXISTS repeated boolean NOT NULL DEFAULT true
