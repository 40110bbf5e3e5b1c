"""Frames in, frames out: the stages that clips pass through."""
