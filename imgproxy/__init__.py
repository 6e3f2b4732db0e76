"""An image repository whose read side is nothing but names.

This module imports nothing, so that a template which only needs `imgproxy.grammar` never loads libvips.
"""
