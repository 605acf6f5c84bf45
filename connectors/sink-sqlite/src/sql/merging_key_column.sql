SELECT x.name AS name, x.coll AS collation
FROM pragma_index_list(?1) AS l, pragma_index_xinfo(l.name) AS x
WHERE l.origin = 'pk' AND x.key AND x.coll <> 'BINARY' COLLATE NOCASE
