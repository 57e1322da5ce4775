"""When a service starts, holds, admits, drains and stops. Pure: no clock, no I/O."""
