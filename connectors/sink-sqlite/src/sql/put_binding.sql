INSERT INTO _foldline_targets (target, generation, physical, fingerprint, binding, desired)
VALUES (?1, ?2, ?3, ?4, ?5, 'running')
ON CONFLICT (target) DO UPDATE SET
  generation = excluded.generation,
  physical = excluded.physical,
  fingerprint = excluded.fingerprint,
  binding = excluded.binding
