"""Runs Kafka's classes on the wheel's Java, and formats a data folder."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omnibase_infra.shared.core.errors import LocalServiceError
from omnibase_infra.shared.local_services.kafka_settings import JAVA_OPTIONS, LOG_OPTIONS, class_path
from omnibase_infra.shared.local_services.local_extra import java
from omnibase_infra.shared.local_services.server_process import BASE_ENVIRONMENT

# Java takes the encoding of file names from the locale.
JAVA_ENVIRONMENT = {**BASE_ENVIRONMENT, "LC_ALL": "C.UTF-8"}
FORMAT_TIMEOUT_SECONDS = 60.0
OUTPUT_LINES_IN_ERRORS = 15


@dataclass(frozen=True, slots=True)
class KafkaJava:
    """How Java is called for Kafka.

    Attributes:
        jars: the class path.
        aot_cache: ahead-of-time cache made for exactly this class path, None to start without.
    """

    jars: Sequence[Path]
    aot_cache: Path | None = None

    def command(self, main_class: str, *arguments: str | Path, options: Sequence[str] = ()) -> list[str]:
        """Return the command line that runs `main_class`."""
        cache = [f"-XX:AOTCache={self.aot_cache}"] if self.aot_cache else []
        return [
            str(java()),
            *JAVA_OPTIONS,
            *cache,
            *options,
            *LOG_OPTIONS,
            "-cp",
            class_path(self.jars),
            main_class,
            *(str(argument) for argument in arguments),
        ]

    def broker_command(self, properties: Path, options: Sequence[str] = ()) -> list[str]:
        """Return the command line of a broker; `properties` is the argument by which it is recognised."""
        return self.command("kafka.Kafka", properties, options=options)

    def format(self, properties: Path, cluster_id: str) -> None:
        """Format the data folder that a configuration names, which must be empty or missing.

        Raises:
            LocalServiceError: with what the tool said.
        """
        command = self.command("kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", properties)
        try:
            result = subprocess.run(
                command,
                cwd=properties.parent,
                env=JAVA_ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
                timeout=FORMAT_TIMEOUT_SECONDS,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise LocalServiceError(f"kafka: the data folder could not be formatted: {error}") from error
        if result.returncode != 0:
            lines = (result.stdout + result.stderr).splitlines()[-OUTPUT_LINES_IN_ERRORS:]
            raise LocalServiceError("kafka: the data folder could not be formatted:\n  " + "\n  ".join(lines))
