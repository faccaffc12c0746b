"""Is it unknown? Detectors, conformal calibration, decisions, false-discovery control, novelty."""
