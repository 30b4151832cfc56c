"""From answers to numbers: metrics of texts, findings, intervals, calibration."""
