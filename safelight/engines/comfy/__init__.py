"""Runs workflows on a ComfyUI server, over HTTP and its websocket."""
