"""How the toy Janus is trained, from an empty model on."""
