"""Is a stream still handled as promised? Tests by betting, a market of thresholds, drift."""
