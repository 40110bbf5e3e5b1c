"""Clips in and out of files: scan a clip, read its frames, write a clip with the same times."""

from io_pipeline.clip_info import ClipInfo
from io_pipeline.clip_reader import MAX_PIXELS, ClipReader, Engine, scan_clip
from io_pipeline.clip_writer import ClipWriter
from io_pipeline.colour import Colour

__all__ = ["MAX_PIXELS", "ClipInfo", "ClipReader", "ClipWriter", "Colour", "Engine", "scan_clip"]
