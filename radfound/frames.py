"""The former address of `radfound.study.frames`, for scripts that name it."""

from radfound.study.frames import FrameConfig, Frames, make_frames

__all__ = ["FrameConfig", "Frames", "make_frames"]
