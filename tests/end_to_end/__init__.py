"""The whole, through real parts: Nginx, the proxy as a process, containers, clients."""
