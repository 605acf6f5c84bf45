SELECT horizon FROM {schema}.horizons WHERE target = $1 AND rule = $2
