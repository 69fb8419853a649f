"""Bundles as a service: HTTP with JSON and server-sent events, and tools for language models."""
