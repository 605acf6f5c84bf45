SELECT t, string_agg(p, ', ' ORDER BY p)
FROM unnest($1::text[]) AS t, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS p
WHERE NOT has_table_privilege(t, p)
GROUP BY t
ORDER BY t
