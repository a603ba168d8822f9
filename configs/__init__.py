"""Packaged experiments and overlays; a package so that wheels and editable installs carry them."""
