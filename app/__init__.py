"""Screens and commands, over workspaces."""
