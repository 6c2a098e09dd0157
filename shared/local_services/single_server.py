"""What local services have in common that are one process each: ending it, and saying how it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

from omnibase_infra.shared.local_services.dependency_checks import CheckResult
from omnibase_infra.shared.local_services.server_process import ServerProcess
from omnibase_infra.shared.local_services.service import ServiceState, ServiceStatus


class SingleServer(ABC):
    """A service that is one process on the loopback address."""

    name: str

    @property
    @abstractmethod
    def process(self) -> ServerProcess:
        """Return the server's process, for tests that signal it."""

    @property
    @abstractmethod
    def log_path(self) -> Path:
        """Return the server's log."""

    @abstractmethod
    def _place(self) -> str:
        """Return `host:port`, without secrets."""

    @abstractmethod
    def _check(self) -> CheckResult:
        """Ask the server how it is."""

    def stop(self) -> bool:
        """End the server, its connections with it; returns whether it ran."""
        return self.process.stop()

    def kill(self) -> bool:
        """End the server and its children at once, as a power cut would; returns whether it ran."""
        return self.process.kill()

    def is_running(self) -> bool:
        """Return whether its process lives."""
        return self.process.is_running()

    def status(self) -> ServiceStatus:
        """Return how it is; asks the server when its process lives."""
        running = self.process.is_running()
        state: ServiceState = "stopped"
        result = CheckResult()
        if running:
            result = self._check()
            state = "unhealthy" if result.problem else "running"
        return ServiceStatus(
            name=self.name,
            state=state,
            address=self._place() if running else "",
            version=result.version,
            uptime_seconds=self.process.uptime_seconds(),
            detail=result.problem,
            log_path=self.log_path,
        )
