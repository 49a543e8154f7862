"""A run that goes on for weeks: systemd, /healthz, a watchdog on progress, suspends, stack dumps, flat memory."""

from mma_edge.service.health import HealthServer, health_address
from mma_edge.service.memory import share_heaps, swept
from mma_edge.service.systemd import Notifier
from mma_edge.service.watch import Watch, allow_stack_dumps

__all__ = ["HealthServer", "Notifier", "Watch", "allow_stack_dumps", "health_address", "share_heaps", "swept"]
