SELECT horizon FROM _foldline_horizons WHERE target = ?1 AND rule = ?2
