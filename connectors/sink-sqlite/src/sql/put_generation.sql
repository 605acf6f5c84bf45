INSERT OR REPLACE INTO _foldline_generations
  (target, generation, role, physical, relation, fingerprint, projection, goals)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
