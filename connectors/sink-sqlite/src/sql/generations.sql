SELECT generation, role, physical, relation, fingerprint, projection, goals
FROM _foldline_generations
WHERE target = ?1
ORDER BY generation
