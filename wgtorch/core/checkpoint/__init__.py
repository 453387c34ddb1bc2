"""Levels and blocks on disk: what a checkpoint holds, how it is written whole or not at all, and read without trust."""
