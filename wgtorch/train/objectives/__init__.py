"""Objectives, by registered name; each module is imported when one of its names is asked for."""
