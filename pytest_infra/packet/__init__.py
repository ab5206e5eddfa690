"""Packet classification, metering, scheduling and balancing: pure models, and real devices to compare them with."""
