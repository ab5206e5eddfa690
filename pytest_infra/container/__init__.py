"""Containers as nodes of a lab: the engine, images, containers, and how to wait until one is ready."""
