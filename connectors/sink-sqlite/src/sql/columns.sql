SELECT
  name,
  type,
  "notnull" AS not_null,
  dflt_value IS NULL AS no_default,
  pk AS key_place
FROM pragma_table_info(?1)
