"""Benchmark the trainer side by side with a plain reference implementation."""
