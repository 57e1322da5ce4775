"""Commands that run as another user than the proxy, who may ask Docker for anything.

The runner is a process in a unit of its own (systemd/docker-autostart-commands.service): it has a
`ProcessBackend` for each service that the proxy runs there, and does what `client` tells its
`server`. Neither needs a privilege for it: systemd starts both, each as its own user.
"""
