"""The bundled toy Janus: a small world of scenes, an exact scorer, a teacher, and its training."""
