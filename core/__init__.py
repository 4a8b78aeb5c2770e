"""Inference: workflows, engine, queue, media. Importing `core` never imports torch."""
