INSERT INTO _foldline_lookups (target, generation, looked_up, seen)
VALUES (?1, ?2, ?3, ?4)
ON CONFLICT (target, generation, looked_up) DO UPDATE SET seen = excluded.seen
