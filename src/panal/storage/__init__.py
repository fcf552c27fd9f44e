"""Volumes and the places that hold them: storage configuration, content, images, drivers."""
