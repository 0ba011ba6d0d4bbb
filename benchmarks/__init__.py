"""Measurements behind the claims, one script per question."""
