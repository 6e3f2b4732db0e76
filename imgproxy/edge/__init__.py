"""The edge: nginx in front, which answers what lies on this machine's disk without asking anybody.

nginx.py         the configuration of nginx, written from the settings
expressions.py   what of a request line is a picture, what is anything at all, and what is a trick
together.py      nginx and gunicorn as one command: started, watched and stopped together
spreading.py     nginx alone, in front of several nodes whose addresses change
"""

from imgproxy.edge.nginx import configuration

__all__ = ["configuration"]
