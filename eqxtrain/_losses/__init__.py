"""Losses: functions, their reduction, labels, regularizers."""
