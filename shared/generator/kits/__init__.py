"""Kits: what the generator knows about one service."""
