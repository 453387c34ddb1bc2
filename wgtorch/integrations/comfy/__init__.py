"""Workflows of ComfyUI as graphs (https://github.com/comfyanonymous/ComfyUI, its API form): :func:`from_comfy`."""
