"""Measurements behind the documents: trials, probes, pointing, throughput. Not part of the wheel."""
